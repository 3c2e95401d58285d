"""The limits of a key: never more than its limit in any minute, and who waits as told is let in."""

from __future__ import annotations

import contextlib
import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labsupport.server.errors import ApiError
from labsupport.server.key_limits import WINDOW_NANOSECONDS, KeyLimiter, KeyLimits, Window, duration
from labsupport.server.keys import Key, Limits, digest

SECOND = 10**9


class Clock:
    now = 123_456_789_012_345

    def __call__(self) -> int:
        return self.now


STEPS = st.lists(
    st.tuples(
        # Most pauses are short against the window; some are the window to the nanosecond.
        st.one_of(
            st.integers(0, 20 * SECOND),
            st.sampled_from([0, 1, WINDOW_NANOSECONDS - 1, WINDOW_NANOSECONDS, WINDOW_NANOSECONDS + 1]),
        ),
        st.integers(1, 10),  # the amount asked for
        st.integers(0, 10),  # what of it is used in the end
        st.integers(0, 5),  # after how many further steps that is known
    ),
    max_size=60,
)


@given(limit=st.integers(1, 12), steps=STEPS)
@settings(max_examples=300, deadline=None)
def test_a_window_lets_in_exactly_what_fits_in_every_minute(limit, steps):
    clock = Clock()
    window = Window(limit, clock=clock)
    admitted = []  # (when, what the reference holds for it), newest last
    open_charges = []
    for number, (pause, amount, used, steps_open) in enumerate(steps):
        clock.now += pause
        for entry in [one for one in open_charges if one[0] <= number]:
            open_charges.remove(entry)
            _, charge, record, used_of_it = entry
            window.settle(charge, used_of_it)
            record[1] = min(record[1], used_of_it)
        amount = min(amount, limit)
        held = sum(units for when, units in admitted if clock.now - WINDOW_NANOSECONDS < when)
        assert window.remaining == limit - held
        fits = held + amount <= limit

        wait = window.wait_nanoseconds(amount)

        assert (wait == 0) == fits  # neither too much nor too little
        if not fits:
            # Whoever waits as told is let in, and a nanosecond earlier is not
            later = copy.deepcopy(window)
            later._clock.now += wait - 1
            assert later.wait_nanoseconds(amount) == 1
            later._clock.now += 1
            assert later.wait_nanoseconds(amount) == 0
            continue
        charge = window.take(amount)
        record = [clock.now, amount]
        admitted.append(record)
        open_charges.append((number + steps_open, charge, record, min(used, amount)))
    # What was used by all that was let in within any minute is within the limit
    for begin, _ in admitted:
        used = sum(units for when, units in admitted if begin <= when < begin + WINDOW_NANOSECONDS)
        assert used <= limit


def test_what_can_never_fit_has_no_time_to_wait():
    with pytest.raises(ValueError, match="over the limit"):
        Window(5).wait_nanoseconds(6)


def limiter(clock: Clock, **limits: int) -> KeyLimiter:
    return KeyLimiter(Key(name="alice", digest=digest("k"), limits=Limits(**limits)), clock=clock)


def ask(limits: KeyLimiter, most_tokens: int = 1, used_tokens: int = 1) -> None:
    with limits.admit(most_tokens) as grant:
        grant.used_tokens = used_tokens


def refusal(limits: KeyLimiter, most_tokens: int = 1) -> ApiError:
    with pytest.raises(ApiError) as refused:
        ask(limits, most_tokens)
    return refused.value


@given(
    requests=st.integers(1, 4),
    tokens=st.integers(1, 40),
    steps=st.lists(
        st.tuples(st.integers(0, 30 * SECOND), st.integers(1, 20), st.integers(0, 20)), max_size=40
    ),
)
@settings(max_examples=200, deadline=None)
def test_who_comes_again_after_retry_after_is_let_in(requests, tokens, steps):
    clock = Clock()
    limits = limiter(clock, requests_per_minute=requests, tokens_per_minute=tokens)
    for pause, most_tokens, used_tokens in steps:
        clock.now += pause
        most_tokens = min(most_tokens, tokens)
        refused = None
        try:
            ask(limits, most_tokens, min(used_tokens, most_tokens))
        except ApiError as error:
            refused = error
        if refused:
            assert refused.status == 429
            seconds = int(refused.headers["Retry-After"])
            assert 1 <= seconds <= 60
            clock.now += seconds * SECOND
            ask(limits, most_tokens, 0)  # raises nothing


def test_a_refusal_says_which_limit_and_when_and_costs_nothing():
    clock = Clock()
    limits = limiter(clock, requests_per_minute=2, tokens_per_minute=100)
    ask(limits, 60, 60)
    clock.now += 10 * SECOND

    refused = refusal(limits, 41)

    assert refused.body["error"]["code"] == "rate_limit_exceeded"
    assert refused.body["error"]["type"] == "rate_limit_error"
    assert "100 tokens a minute, of which 40 are left and this request can use 41" in refused.message
    assert "alice" in refused.message
    assert refused.headers == {
        "Retry-After": "50",
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "50s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "40",
        "x-ratelimit-reset-tokens": "50s",
    }
    # The refused one took neither a request nor tokens
    ask(limits, 40, 40)
    assert "2 requests a minute" in refusal(limits, 1).message


def test_what_a_request_did_not_use_comes_back_when_it_ends():
    limits = limiter(Clock(), tokens_per_minute=100)
    with limits.admit(90) as grant:
        assert limits.headers()["x-ratelimit-remaining-tokens"] == "10"
        refusal(limits, 11)
        grant.used_tokens = 30
    assert limits.headers()["x-ratelimit-remaining-tokens"] == "70"

    with pytest.raises(RuntimeError), limits.admit(70):
        raise RuntimeError

    assert limits.headers()["x-ratelimit-remaining-tokens"] == "70"


def test_what_a_request_used_over_its_estimate_is_waited_for():
    clock = Clock()
    limits = limiter(clock, tokens_per_minute=100)
    ask(limits, 60, 20)
    clock.now += 20 * SECOND
    ask(limits, 30, 150)

    assert limits.headers()["x-ratelimit-remaining-tokens"] == "0"
    assert refusal(limits, 1).headers["Retry-After"] == "60"
    clock.now += 60 * SECOND
    ask(limits, 100, 100)


def test_what_a_long_request_used_over_its_estimate_is_waited_for_once_it_is_known():
    clock = Clock()
    limits = limiter(clock, tokens_per_minute=100)
    with limits.admit(10) as grant:
        clock.now += 60 * SECOND
        ask(limits, 40, 40)  # the charge of a minute ago counts no more
        grant.used_tokens = 1000

    assert refusal(limits, 1).headers["Retry-After"] == "60"
    clock.now += 60 * SECOND
    ask(limits, 100, 100)


def test_what_nobody_knows_stays_charged_as_estimated():
    limits = limiter(Clock(), tokens_per_minute=100)
    with limits.admit(40) as grant:
        grant.used_tokens = None

    assert limits.headers()["x-ratelimit-remaining-tokens"] == "60"


def test_an_unbounded_request_holds_all_that_is_left_and_gives_back_what_it_did_not_use():
    limits = limiter(Clock(), tokens_per_minute=100)
    ask(limits, 30, 30)

    with limits.admit(5, is_unbounded=True) as grant:
        assert limits.headers()["x-ratelimit-remaining-tokens"] == "0"
        refusal(limits, 1)
        grant.used_tokens = 25

    assert limits.headers()["x-ratelimit-remaining-tokens"] == "45"
    with pytest.raises(ApiError), limits.admit(46, is_unbounded=True):
        pass


def test_an_unbounded_request_with_an_empty_prompt_needs_something_left_too():
    limits = limiter(Clock(), tokens_per_minute=100)
    with limits.admit(0, is_unbounded=True), pytest.raises(ApiError), limits.admit(0, is_unbounded=True):
        pass


def test_a_request_that_runs_longer_than_a_minute_gives_nothing_back_twice():
    clock = Clock()
    limits = limiter(clock, tokens_per_minute=100)
    with limits.admit(100) as grant:
        clock.now += 61 * SECOND
        ask(limits, 100, 100)
        grant.used_tokens = 1
    assert limits.headers()["x-ratelimit-remaining-tokens"] == "0"


def test_a_request_that_is_over_the_limit_by_itself_is_told_so_and_not_to_come_again():
    limits = limiter(Clock(), tokens_per_minute=100)

    refused = refusal(limits, 101)

    assert refused.status == 400
    assert "101 tokens" in refused.message
    assert "100 a minute" in refused.message
    assert refused.param == "max_tokens"
    assert "Retry-After" not in refused.headers


def test_so_many_at_once_and_no_more_however_they_end():
    limits = limiter(Clock(), concurrent=2)
    with contextlib.ExitStack() as two:
        two.enter_context(limits.admit(1))
        with contextlib.suppress(RuntimeError), limits.admit(1):
            assert "2 concurrent requests" in refusal(limits).message
            raise RuntimeError
        two.enter_context(limits.admit(1))
        assert int(refusal(limits).headers["Retry-After"]) >= 1
    ask(limits)
    assert limits.headers() == {}  # OpenAI has no header for this limit


def test_one_keys_use_takes_nothing_from_another():
    keys = [Key(name=name, digest=digest(name), limits=Limits(requests_per_minute=1)) for name in ("a", "b")]
    limits = KeyLimits([*keys, Key(name="free", digest=digest("free"))])
    for name in ("a", "b", "free", "free", "", ""):
        with limits.admit(name, 10**9):
            pass

    with pytest.raises(ApiError), limits.admit("a", 1):
        pass
    assert limits.headers("free") == limits.headers("") == {}


@pytest.mark.parametrize(
    ("nanoseconds", "written"),
    [(0, "0s"), (1, "0.001s"), (1_500_000_000, "1.5s"), (59_999_000_001, "1m0s"), (360 * SECOND, "6m0s")],
)
def test_durations_are_written_as_openai_writes_them(nanoseconds, written):
    assert duration(nanoseconds) == written
