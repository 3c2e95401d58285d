"""Memory that runs out is taken from who came last: nobody else's waiting, and no favour, buys another's."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_fairness import Engine
from test_scheduler import sequence

from labsupport.engine.seniority import Seniority
from labsupport.engine.sequence import Sequence


@pytest.mark.parametrize("favour", [0, -3, -1000])
def test_a_waiting_request_lends_its_rank_to_nobody(favour):
    # Given two keys' requests that run, and a favoured one of the first key that waits
    engine = Engine(slots=2, admission="preempt")
    engine.submit("short", "a", [1] * 10, 8)
    early = engine.submit("early", "b", [2] * 10, 30)
    while not early.admitted:
        engine.step()
    favoured = engine.submit("favoured", "a", [3] * 10, 20, priority=favour)
    # When a third key's request is let in over its head, because less was done for that key
    late = engine.submit("late", "c", [4] * 10, 30)
    lost: list[Sequence] = []
    while not late.admitted:
        engine.step()
    assert not favoured.admitted
    for _ in engine.steps():
        # Then it stands behind those that came earlier, and memory is taken from it
        if early in engine.scheduler.running and late in engine.scheduler.running:
            assert early.place < late.place
        lost += [each for each in (early, late) if each.slot is None and not each.finish_reason]
    assert late in lost
    assert early not in lost


def test_favour_takes_memory_from_ones_own_alone():
    # Given two keys whose requests run, the second's the later one
    engine = Engine(slots=3, admission="preempt")
    usual = engine.submit("usual", "a", [1] * 10, 38)
    other = engine.submit("other", "b", [2] * 10, 38)
    engine.step()
    engine.step()
    # When the first has a favoured one besides, and memory runs out
    favoured = engine.submit("favoured", "a", [3] * 10, 38, priority=-5)
    engine.step()
    lost: list[Sequence] = []
    for _ in engine.steps():
        lost += [each for each in (usual, other, favoured) if each.slot is None and not each.finish_reason]
        if other in engine.scheduler.running and favoured in engine.scheduler.running:
            assert favoured.place < other.place < usual.place
    # Then it is the usual one of the same key that gives way first
    assert lost[0] is usual
    assert favoured not in lost


def test_who_gives_way_with_a_high_number_loses_its_memory_first():
    engine = Engine(slots=3, admission="preempt")
    batch = engine.submit("batch", "a", [1] * 10, 38, priority=5)
    engine.step()
    usual = engine.submit("usual", "b", [2] * 10, 38)
    lost = False
    for _ in engine.steps():
        assert usual.admitted is None or usual.slot is not None or usual.finish_reason
        lost |= batch.slot is None and not batch.finish_reason
    assert lost
    assert batch.finish_reason == "length"


KEYS = st.sampled_from("abc")
ARRIVE = st.tuples(st.just("arrive"), KEYS, st.integers(-3, 3))
LET_IN = st.tuples(st.just("let in"), KEYS, st.integers(0, 2))
END = st.tuples(st.just("end"), KEYS, st.integers(0, 2))


class Books:
    """What the property below wants to know, kept apart from what it tests."""

    def __init__(self) -> None:
        self.seniority = Seniority(lambda each: each.key)
        self.now = 0
        self.waiting: list[Sequence] = []
        self.placed: list[Sequence] = []
        self.let_in_at: dict[tuple[float, int], int] = {}  # when a place was brought

    def arrive(self, key: str, priority: int) -> Sequence:
        self.now += 1
        new = sequence(str(self.now), [1], 1, order=(self.now + 10.0 * priority, self.now), key=key)
        new.arrived = float(self.now)
        self.seniority.arrived(new)
        self.waiting.append(new)
        return new

    def let_in(self, new: Sequence) -> None:
        self.now += 1
        self.waiting.remove(new)
        new.admitted = float(self.now)
        before = {each.place for each in self.placed}
        self.seniority.admitted(new)
        self.placed.append(new)
        (brought,) = {each.place for each in self.placed} - before
        self.let_in_at[brought] = self.now

    def end(self, old: Sequence) -> None:
        self.now += 1
        self.placed.remove(old)
        self.seniority.ended(old)

    def ranks(self) -> list[Sequence]:
        return sorted(self.placed, key=lambda each: each.place)


def arrivals(key: str, *priorities: int) -> list[tuple[str, str, int]]:
    return [("arrive", key, priority) for priority in priorities]


ONE, NEXT = [("let in", "a", 0)], [("let in", "a", 1)]


@example([*arrivals("a", 0, 0, -3), *ONE, *ONE, *ONE])  # three places of one key, and the last has the first
@example(  # the second is overtaken by what has ended when the third comes
    [*arrivals("a", 0, 0, 0), *arrivals("b", 0), *ONE, ("let in", "b", 0), *ONE, ("end", "b", 0), *ONE]
)
@example([*arrivals("a", 0, 0, -1, -2), *ONE, *ONE, *NEXT, ("end", "a", 0), *ONE])
@given(st.lists(ARRIVE | ARRIVE | LET_IN | LET_IN | END, max_size=60))
def test_priority_then_arrival_and_a_place_that_is_kept(events):
    books = Books()
    for what, key, number in events:
        pool = [each for each in (books.waiting if what == "let in" else books.placed) if each.key == key]
        if what == "arrive":
            books.arrive(key, number)
        elif pool and what == "end":
            before = books.ranks()
            books.end(old := pool[number % len(pool)])
            # An end moves nobody
            assert books.ranks() == [each for each in before if each is not old]
        elif pool:
            before, new = books.ranks(), pool[number % len(pool)]
            places = {each.place for each in before}
            # Who comes later than whom, were there no favours; whom others were let in over comes after those
            due = max(new.order[0], new.arrived)
            overtaken_by = [
                each.place for each in before if each.key != key and books.let_in_at[each.place] > new.arrived
            ]
            due = max([due, *(seconds for seconds, _ in overtaken_by)])
            others_places = {each.request_id: each.place for each in before if each.key != key}
            books.let_in(new)
            # A place comes into the world, behind exactly those that are not later; all others stay
            (brought,) = {each.place for each in books.placed} - places
            assert brought[0] == due
            assert all((place < brought) == (place[0] <= due) for place in places)
            # Other keys' requests keep theirs, and this key's hold its places in the order of its own wishes
            assert all(each.place == others_places.get(each.request_id, each.place) for each in books.placed)
            own = [each for each in books.ranks() if each.key == key]
            assert own == sorted(own, key=lambda each: each.order)
        assert books.seniority.check_integrity() == []


@given(st.lists(ARRIVE | LET_IN | END, max_size=40), st.lists(st.tuples(KEYS, st.integers(-1000, 3))))
def test_who_waits_changes_nobodys_place(events, onlookers):
    def ranks(watched_by: list[tuple[str, int]]) -> list[list[str]]:
        books = Books()
        for key, priority in watched_by:  # they wait all the time
            books.now -= 1
            books.arrive(key, priority)
            books.waiting.pop()
        seen = []
        for what, key, number in events:
            pool = [each for each in (books.waiting if what == "let in" else books.placed) if each.key == key]
            if what == "arrive":
                books.arrive(key, number)
            elif pool:
                (books.end if what == "end" else books.let_in)(pool[number % len(pool)])
            seen.append([each.request_id for each in books.ranks()])
        return seen

    assert ranks(onlookers) == ranks([])
