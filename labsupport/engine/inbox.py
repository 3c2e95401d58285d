"""What came for one request and was not read yet.

Right means: nothing is lost and the order stays; and a reader who falls behind gets what several steps gave
as one delta, so that work done per delta (a chunk of a stream, mostly) shrinks exactly when there is too much
of it. vLLM's `RequestOutputCollector` does the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from labsupport.engine.messages import Delta


class Inbox:
    """For one reader, in one event loop. An error that is put in is raised where it is read.

    counted: told of every delta as it comes, whether or not the reader gets to it.
    """

    def __init__(self, counted: Callable[[Delta], None] | None = None) -> None:
        self._news: deque[Delta | Exception] = deque()
        self._counted = counted
        self._came = asyncio.Event()

    def put(self, news: Delta | Exception) -> None:
        if self._counted and isinstance(news, Delta) and news.finish_reason != "error":
            self._counted(news)
        self._news.append(news)
        self._came.set()

    async def get(self) -> Delta:
        """Wait for a delta; all that are there are joined, up to one that tells of an error."""
        while not self._news:
            self._came.clear()
            await self._came.wait()
        first = self._news.popleft()
        if isinstance(first, Exception):
            raise first
        deltas = [first]
        while self._news and isinstance(news := self._news[0], Delta) and news.finish_reason != "error":
            deltas.append(news)
            self._news.popleft()
        return Delta.joined(deltas)
