"""The interval around a median, on data whose answer is known."""

from __future__ import annotations

import random

import pytest

from benchmarks.bootstrap import estimate


def test_equal_values_leave_no_doubt():
    found = estimate([1.25] * 7)

    assert (found.median, found.low, found.high, found.least, found.most) == (1.25,) * 5


def test_five_values_give_their_whole_range_as_theory_says():
    found = estimate([1.0, 1.1, 1.2, 1.3, 9.0])

    assert found.median == 1.2
    assert (found.low, found.high) == (1.0, 9.0)


def test_one_wild_pair_of_many_moves_the_interval_little():
    found = estimate([1.0 + 0.01 * number for number in range(20)] + [50.0])

    assert found.high < 1.25
    assert found.most == 50.0


def test_about_95_in_100_intervals_hold_the_true_median():
    chance = random.Random(3)
    held = 0
    for trial in range(200):
        found = estimate([chance.lognormvariate(0.0, 0.2) for _ in range(25)], seed=trial, resamples=400)
        held += found.low <= 1.0 <= found.high

    assert held / 200 == pytest.approx(0.95, abs=0.05)


def test_the_same_values_give_the_same_interval():
    values = [1.0, 1.3, 0.9, 1.1, 1.2, 1.05]

    assert estimate(values) == estimate(values)
