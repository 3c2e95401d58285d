"""Alternation: both contenders take turns, so that whatever drifts on the machine hits both alike.

A processor that warms up, a neighbour that comes and goes: such drifts are slower than one pair. Within a
pair somebody is first; swapping the order from pair to pair keeps that from favouring one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from benchmarks.quiet import OtherWork
from benchmarks.results import Series

Measure = Callable[[str, int], dict[str, Any]]
"""Run a contender, by name, with a seed; the figures of the run."""


class Budget:
    """How long this invocation may go on. A pair that has begun is finished."""

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def is_spent(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end


def order_of(number: int, contenders: tuple[str, ...]) -> tuple[str, ...]:
    """Who is first in pair `number`: A B, B A, A B, …"""
    return contenders if number % 2 == 0 else contenders[::-1]


def measure_pairs(
    series: Series,
    contenders: tuple[str, ...],
    measure: Measure,
    *,
    wanted: int,
    budget: Budget,
    is_quiet: bool = True,
) -> bool:
    """Add pairs to the series until it has as many as `wanted`, or the budget is spent; whether it has.

    contenders: two, or one alone where there is nothing to compare with.
    The seed is the pair's number: both contenders get the same prompts, and every pair gets its own.
    is_quiet: whether the machine was when this began, for whoever reads the pairs.
    """
    while len(series.pairs) < wanted and not budget.is_spent:
        number = len(series.pairs)
        began, runs = datetime.now(UTC), {}
        for name in order_of(number, contenders):
            with OtherWork() as others:
                runs[name] = measure(name, number)
            runs[name]["other_cpu_share"] = round(others.share, 4)
        series.add(
            {
                "number": number,
                "seed": number,
                "began": began.isoformat(timespec="seconds"),
                "order": list(order_of(number, contenders)),
                "quiet": is_quiet,
                "runs": runs,
            }
        )
        print(f"  {series.path.stem}: pair {number + 1} of {wanted}", flush=True)
    return len(series.pairs) >= wanted
