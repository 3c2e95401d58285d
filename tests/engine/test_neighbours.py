"""Threads beside a busy neighbour, on a modelled machine: two cores, times of the size of those measured."""

from __future__ import annotations

import random

import pytest

from labsupport.engine.runners.neighbours import LONGEST_PAUSE, WINDOW, DecodeThreads

# Milliseconds by sequences and threads, quiet and beside a process that takes a core of two.
QUIET = {1: {1: 11.5, 2: 7.7}, 16: {1: 126.0, 2: 71.0}}
BUSY = {1: {1: 12.0, 2: 28.0}, 16: {1: 130.0, 2: 150.0}}


def run(threads, times, steps, *, sequences=1, noise=0.0, chance=None):
    """The counts that were used, and the seconds that all took together."""
    chance = chance or random.Random(1)
    counts, total = [], 0.0
    for _ in range(steps):
        seconds = times[sequences][threads.count] / 1000 * (1 + noise * chance.random())
        counts.append(threads.count)
        total += seconds
        threads.took(sequences, seconds)
    return counts, total


@pytest.mark.parametrize("sequences", [1, 16])
def test_alone_every_step_has_all_threads(sequences):
    counts, _ = run(DecodeThreads(2), QUIET, 3000, sequences=sequences, noise=0.4)
    assert set(counts) == {2}


def test_hiccups_change_nothing():
    threads, counts = DecodeThreads(2), []
    run(threads, QUIET, 20 * WINDOW)
    for _ in range(20):
        counts += run(threads, BUSY, WINDOW)[0] + run(threads, QUIET, 3 * WINDOW)[0]
    assert set(counts) == {2}


def test_a_neighbour_is_left_its_core_until_it_goes():
    threads = DecodeThreads(2)
    run(threads, QUIET, 200)
    counts, beside = run(threads, BUSY, 2000)
    assert set(counts[4 * WINDOW : 8 * WINDOW]) == {1}
    assert beside < 1.1 * 2000 * BUSY[1][1] / 1000  # nearly as fast as one thread from the start
    counts, _ = run(threads, QUIET, 4000)
    assert set(counts[WINDOW * (LONGEST_PAUSE + 2) :]) == {2}


def test_where_fewer_threads_are_no_faster_they_are_hardly_tried():
    slower = {1: {1: 30.0, 2: 28.0}}
    threads = DecodeThreads(2)
    run(threads, QUIET, 200)
    counts, _ = run(threads, slower, 4000)
    assert 0 < counts.count(1) < 0.02 * len(counts)


def test_of_several_threads_as_many_are_given_up_as_is_of_use():
    # Two neighbours on eight cores: with more than six threads all wait for those that were put off.
    busy = {1: {count: 8 / count if count <= 6 else 5.0 for count in range(1, 9)}}
    quiet = {1: {count: 8 / count for count in range(1, 9)}}
    threads = DecodeThreads(8)
    run(threads, quiet, 100)
    counts, _ = run(threads, busy, 1000)
    assert counts[-200:].count(6) > 150
    counts, _ = run(threads, quiet, 4000)
    assert counts[-1] == 8


def test_steps_of_sizes_that_come_and_go_are_compared_each_with_its_own():
    threads, chance = DecodeThreads(2), random.Random(2)
    for times, wanted in ((QUIET, 2), (BUSY, 1)):
        for _ in range(400):
            sequences = chance.choice((1, 16))
            threads.took(sequences, times[sequences][threads.count] / 1000)
        assert threads.count == wanted


def test_a_single_thread_stays_one():
    threads = DecodeThreads(1)
    counts, _ = run(threads, BUSY, 500, noise=5.0)
    assert set(counts) == {1}
