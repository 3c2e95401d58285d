"""How far a median of a few ratios can be trusted: a percentile bootstrap.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. Five pairs
are few: the bootstrap's median is then the smallest of them with a probability of 0.058 (three or more of
five draws), over 0.025, so the interval is just the range from the least to the most. More pairs narrow it.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from labsupport.loadtest.statistics import percentile

RESAMPLES = 10_000


class Estimate(NamedTuple):
    """The median of `size` values with its 95 % interval, and the least and the most of the values."""

    median: float
    low: float
    high: float
    least: float
    most: float
    size: int


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
        size=len(values),
    )
