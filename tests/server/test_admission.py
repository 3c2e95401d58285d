"""How many may wait, and when whoever is refused should come again."""

from __future__ import annotations

import contextlib

import pytest

from labsupport.server.errors import ApiError
from labsupport.server.limits import Admission


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def retry_after(admission: Admission, sequences: int) -> int:
    with pytest.raises(ApiError) as refused, admission.admit(sequences):
        pass
    assert refused.value.status == 429
    return int(refused.value.headers["Retry-After"])


def test_the_time_to_retry_grows_with_what_requests_took_lately_and_with_what_is_asked():
    clock = Clock()
    admission = Admission(4, clock=clock)

    def stay(seconds: float) -> None:
        with admission.admit(1):
            clock.now += seconds

    # Given nothing to go by, it is the shortest
    with admission.admit(4):
        assert retry_after(admission, 1) == 1
    # Given requests that stayed 40 s each, of four in hand one ends every 10 s
    for _ in range(50):
        stay(40)
    with contextlib.ExitStack() as four:
        for _ in range(4):
            four.enter_context(admission.admit(1))
        assert retry_after(admission, 1) == 10
        clock.now += 10
        assert retry_after(admission, 3) == 30
        clock.now += 30
    # And given short ones again, it is short again
    for _ in range(50):
        stay(0.1)
    with admission.admit(4):
        assert retry_after(admission, 4) == 1


def test_who_is_refused_is_told_to_come_after_those_who_were_refused_before():
    clock = Clock()
    admission = Admission(4, clock=clock)
    for _ in range(50):
        with admission.admit(1):
            clock.now += 8
    # Given four in hand of which one ends every 2 s
    with admission.admit(4):
        assert [retry_after(admission, 1) for _ in range(3)] == [2, 4, 6]
        # When the first two are due, they are not waited for any more
        clock.now += 4
        assert retry_after(admission, 1) == 4
        # And of a flood, whoever it is, only as many count as there are places; nor is it ever very long
        assert [retry_after(admission, 1) for _ in range(100)][-1] == 10
    for _ in range(50):
        with admission.admit(1):
            clock.now += 1000
    with admission.admit(4):
        assert retry_after(admission, 1) == 60


def test_places_come_back_however_a_request_ends():
    admission = Admission(2)
    with pytest.raises(RuntimeError), admission.admit(2):
        raise RuntimeError
    assert admission.taken == 0


def test_a_short_queue_of_long_prompts_is_full_too():
    admission = Admission(8, 100)
    with admission.admit(1, 90):
        with pytest.raises(ApiError, match="90 of 100 prompt tokens in hand, 20 more asked") as refused:
            admission.check(1, 20)
        assert refused.value.status == 429
        assert refused.value.code == "queue_full"
        assert int(refused.value.headers["Retry-After"]) >= 1
        admission.check(1, 10)
    # What finds nothing in hand is let in, however long it is: or it never could be
    with admission.admit(1, 5000):
        assert admission.prompt_tokens.taken == 5000
    assert admission.prompt_tokens.taken == 0
    # And by default there is no such bound
    with Admission(8).admit(1, 10**9):
        pass
