"""The last minute: what is older is gone, a second that has not ended is not shown, a quantile is near."""

from __future__ import annotations

import random

import pytest

from labsupport.server.room.last_minute import RATE_SECONDS, WINDOW_SECONDS, LastMinute


class Clock:
    def __init__(self) -> None:
        self.now = 1000.25

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def minute(clock):
    return LastMinute(clock=clock)


def test_only_whole_seconds_since_it_began_are_shown(minute, clock):
    minute.tokens(generated=3, prompt=30)  # in a second that was half over when it began
    clock.now = 1001.5
    minute.tokens(generated=5, prompt=50)
    assert minute.view().generated == ()
    clock.now = 1003.5

    view = minute.view()

    assert (view.generated, view.prompt) == ((5, 0), (50, 0))
    assert (view.generated_rate, view.prompt_rate) == (2.5, 25)


def test_a_minute_is_sixty_seconds_and_what_is_older_is_forgotten(minute, clock):
    for second in range(200):
        clock.now = 1001.0 + second
        minute.tokens(generated=second, prompt=0)
        minute.first_token(1.0 + second)
    clock.now += 1

    view = minute.view()

    assert view.generated == tuple(range(200 - WINDOW_SECONDS, 200))
    assert view.generated_rate == sum(range(200 - RATE_SECONDS, 200)) / RATE_SECONDS
    assert view.first_token is not None
    assert view.first_token.count == WINDOW_SECONDS
    assert len(vars(minute)["_seconds"]) <= WINDOW_SECONDS + 1


def test_a_quantile_is_within_its_promise_however_latencies_are_spread(minute):
    chance = random.Random(3)
    values = sorted(10 ** chance.uniform(-5, 2) for _ in range(2001))
    for value in values:
        minute.next_token(value)

    view = minute.view().between_tokens

    assert view is not None
    assert view.count == 2001
    assert view.median == pytest.approx(values[1000], rel=0.022)
    assert view.p95 == pytest.approx(values[1900], rel=0.022)


def test_before_the_first_measurement_there_is_no_latency(minute):
    assert minute.view().first_token is None
    minute.first_token(0.0)  # a clock that did not move between two tokens
    assert minute.view().first_token is not None


def test_usage_counts_only_where_nobody_sees_the_steps(clock):
    here, elsewhere = LastMinute(clock=clock), LastMinute(clock=clock, counts_usage=True)
    clock.now += 1
    for minute in (here, elsewhere):
        minute.used(prompt_tokens=7, generation_tokens=4)
    clock.now += 1

    assert (here.view().generated, here.view().prompt) == ((0,), (0,))
    assert (elsewhere.view().generated, elsewhere.view().prompt) == ((4,), (7,))
