"""How far a median of a few ratios can be trusted: a percentile bootstrap.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. With five pairs the
interval can reach no further than the smallest and largest ratio that was seen, which is little to go by;
more pairs narrow it where the pairs agree.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from labsupport.loadtest.statistics import percentile

RESAMPLES = 10_000


class Estimate(NamedTuple):
    """The median of `count` values with its 95 % interval, and the least and the most of the values."""

    median: float
    low: float
    high: float
    least: float
    most: float
    count: int


def estimate(values: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The median of at least one value, with the 95 % percentile interval of its bootstrap distribution."""
    chance = random.Random(seed)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(resamples))
    return Estimate(
        median=statistics.median(values),
        low=percentile(medians, 2.5),
        high=percentile(medians, 97.5),
        least=min(values),
        most=max(values),
        count=len(values),
    )
