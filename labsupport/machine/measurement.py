"""How to time something honestly: warm up, wait until it is really done, repeat, and show the scatter.

Right means: the clock is read only when the device has finished (a GPU returns before it has computed
anything), the first runs do not count (they pay for pages, caches and kernels being made), and a result is
never one number: `median` says what is usual, `best` what the hardware can do when nobody disturbs it,
`spread` how far to trust it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """Repeated measurements of one rate, in `unit` (higher is better)."""

    name: str
    unit: str
    samples: tuple[float, ...]
    note: str = ""

    @property
    def median(self) -> float:
        """The usual rate."""
        return statistics.median(self.samples)

    @property
    def best(self) -> float:
        """The highest rate: other programs can only slow a measurement down."""
        return max(self.samples)

    @property
    def spread(self) -> float:
        """(highest − lowest) / median."""
        return (max(self.samples) - min(self.samples)) / self.median


def nothing_to_wait_for() -> None:
    """For work that is done when its call returns, as on a CPU."""


def durations(
    action: Callable[[], object],
    *,
    synchronize: Callable[[], object] = nothing_to_wait_for,
    warm_up: int = 2,
    least: int = 5,
    most: int = 30,
    budget_seconds: float = 1.0,
) -> list[float]:
    """Seconds of each of `least` to `most` runs of `action`, after `warm_up` runs that do not count.

    `synchronize` returns when everything that `action` started has finished. Runs stop at `most`, or after
    `least` when `budget_seconds` are spent.
    """
    for _ in range(warm_up):
        action()
    synchronize()
    seconds: list[float] = []
    started = time.perf_counter()
    while len(seconds) < least or (len(seconds) < most and time.perf_counter() - started < budget_seconds):
        before = time.perf_counter()
        action()
        synchronize()
        seconds.append(time.perf_counter() - before)
    return seconds
