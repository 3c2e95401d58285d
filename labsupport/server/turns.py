"""Whose turn it is, where fewer may be at work than want to be.

Right means: a free turn is never left unused while somebody waits; keys take turns (round robin), so that one
who asks a hundred times at once makes another wait for one turn and not for a hundred; and whoever leaves,
at whatever moment, takes no turn along.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_Waiter = asyncio.Future[None]


class Turns:
    """`limit` turns. Those who wait for one do so in the order of their coming, each key in its own line."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._lines: dict[str, deque[_Waiter]] = {}
        """Of keys that wait, the next to be served first."""

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Wait for a turn and hold it for the block."""
        await self._take(key)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, key: str) -> None:
        if self._free:  # then nobody waits
            self._free -= 1
            return
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        self._lines.setdefault(key, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._forget(key, waiter)
            else:  # the turn came in the moment of leaving
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._lines:
            key, line = next(iter(self._lines.items()))
            waiter = line.popleft()
            del self._lines[key]
            if line:
                self._lines[key] = line  # behind all the others
            if not waiter.done():  # its task may be cancelled and not know yet
                waiter.set_result(None)
                return
        self._free += 1

    def _forget(self, key: str, waiter: _Waiter) -> None:
        line = self._lines.get(key, deque())
        if waiter in line:
            line.remove(waiter)
        if not line:
            self._lines.pop(key, None)
