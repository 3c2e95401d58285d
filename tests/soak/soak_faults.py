"""What goes wrong while callers call: the engine is killed, aborts, stands still; a crowd comes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import psutil
from soak_clients import Callers

CROWD = 160
"""Ten times what has a slot."""
STANDS_STILL_SECONDS = 2.0
TRIAL = "labsupport.engine.grammars.trial"


class Faults:
    """Injects one fault at a time into the server with this process id. done: what was done, and when."""

    def __init__(self, server_pid: int, callers: Callers, draw: random.Random) -> None:
        self._server = psutil.Process(server_pid)
        self._callers = callers
        self._draw = draw
        self.done: list[str] = []

    async def inject(self, *, every_seconds: float, until: float) -> None:
        """Faults at random moments, `every_seconds` on average, until the monotonic clock says `until`."""
        kinds = [self._kill, self._abort, self._stand_still, self._crowd]
        self._draw.shuffle(kinds)  # each comes once before any comes twice
        while True:
            pause = self._draw.expovariate(1 / every_seconds)
            if time.monotonic() + pause > until:
                return
            await asyncio.sleep(pause)
            kinds.append(kind := kinds.pop(0))
            self.done.append(kind.__name__.strip("_").replace("_", " "))
            await kind()

    def engines(self) -> list[psutil.Process]:
        """The server's engine processes; one, or none while it is between two."""
        return [child for child in self._children() if TRIAL not in child.cmdline()]

    def _children(self) -> list[psutil.Process]:
        """Engines, and the process in which grammars are tried."""
        return [child for child in self._server.children() if child.status() != psutil.STATUS_ZOMBIE]

    async def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    async def _abort(self) -> None:
        self._signal(signal.SIGABRT)  # as llama.cpp ends when one of its assertions does not hold

    async def _stand_still(self) -> None:
        self._signal(signal.SIGSTOP)
        await asyncio.sleep(STANDS_STILL_SECONDS)
        self._signal(signal.SIGCONT)

    async def _crowd(self) -> None:
        await self._callers.crowd(CROWD)

    def _signal(self, number: signal.Signals) -> None:
        for child in self._children():
            os.kill(child.pid, number)
