"""Distributions as they are reported: a median says what is usual, p95 and p99 whom it hurts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """A summary of `count` values, in the unit of the values; NaN everywhere if there are none."""

    count: int
    mean: float
    median: float
    p95: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Distribution:
        """Summarise the values that there are; None stands for one that was not measured."""
        known = sorted(value for value in values if value is not None)
        return cls(
            count=len(known),
            mean=math.fsum(known) / len(known) if known else math.nan,
            median=percentile(known, 50),
            p95=percentile(known, 95),
            p99=percentile(known, 99),
            most=known[-1] if known else math.nan,
        )


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie, interpolated linearly between neighbours.

    Source: definition 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages" (1996), numpy's
    default. NaN of nothing.
    """
    if not ascending:
        return math.nan
    place = (len(ascending) - 1) * percent / 100
    below, above = math.floor(place), math.ceil(place)
    return ascending[below] + (ascending[above] - ascending[below]) * (place - below)
