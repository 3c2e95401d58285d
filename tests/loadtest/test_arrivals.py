"""Arrivals: the rate and the burstiness that were asked for, the same again for the same seed."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labsupport.errors import LabsupportError
from labsupport.loadtest import Closed, Gamma, Poisson


def gaps(arrivals: Gamma, count: int = 20_000, seed: int = 7) -> list[float]:
    times = list(itertools.islice(arrivals.times(random.Random(seed)), count))
    return [times[0]] + [later - earlier for earlier, later in itertools.pairwise(times)]


@settings(deadline=None)  # a starved machine is no slow function
@given(st.floats(0.01, 1000), st.floats(0.1, 10), st.integers(0, 2**32))
def test_arrivals_only_go_forward_and_are_the_same_for_the_same_seed(rate, burstiness, seed):
    arrivals = Gamma(rate, burstiness)
    first, again = (list(itertools.islice(arrivals.times(random.Random(seed)), 50)) for _ in range(2))

    assert first == again
    assert first[0] >= 0
    assert first == sorted(first)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_the_mean_gap_is_the_rates_and_its_scatter_the_burstinesss(burstiness):
    found = gaps(Gamma(5.0, burstiness))

    assert statistics.fmean(found) == pytest.approx(1 / 5, rel=0.05)
    assert statistics.stdev(found) / statistics.fmean(found) == pytest.approx(
        1 / math.sqrt(burstiness), rel=0.05
    )


def test_a_poisson_process_has_exponential_gaps():
    found = gaps(Poisson(2.0))

    for seconds in (0.1, 0.5, 1.5):
        share = sum(gap > seconds for gap in found) / len(found)
        assert share == pytest.approx(math.exp(-2.0 * seconds), abs=0.01)


def test_infinite_burstiness_is_a_metronome():
    assert gaps(Gamma(4.0, math.inf), 8) == pytest.approx([0.25] * 8)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Closed(0),
        lambda: Poisson(0),
        lambda: Poisson(math.inf),
        lambda: Gamma(1, 0),
        lambda: Gamma(1, math.nan),
    ],
)
def test_impossible_arrivals_are_refused_with_what_is_allowed(wrong):
    with pytest.raises(LabsupportError) as refusal:
        wrong()
    assert refusal.value.allowed
