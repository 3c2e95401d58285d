"""How fast this computer is for us just now: other programs may leave us a tenth of it.

A bound in seconds means those of a quiet computer. What only computes is bounded in the processor's time,
which does not care; what has to be waited for is given as much longer as a computation takes longer now.
"""

from __future__ import annotations

import threading
import time

import httpx
import psutil

_SAMPLE_SECONDS = 0.02


def slowness() -> float:
    """Seconds that pass while a second's worth is computed: 1 on a quiet computer."""
    begin, computed = time.monotonic(), time.thread_time() + _SAMPLE_SECONDS
    while time.thread_time() < computed:
        pass
    return max(1.0, (time.monotonic() - begin) / _SAMPLE_SECONDS)


def computed_seconds(pid: int) -> float:
    """What a process has used of the processors so far."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


class HealthWatch:
    """Asks again and again, as long as the block lasts, whether the server is alive.

    slowest: the longest answer, in seconds of a quiet computer. asked: how many there were.
    """

    def __init__(self, url: str) -> None:
        self.slowest = 0.0
        self.asked = 0
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> HealthWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(300)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=300) as connection:
            before = slowness()
            while not self._stop.wait(0.1):
                begin = time.monotonic()
                connection.get("/health/live").raise_for_status()
                seconds = time.monotonic() - begin
                after = slowness()
                self.slowest = max(self.slowest, seconds / max(before, after))
                self.asked += 1
                before = after
