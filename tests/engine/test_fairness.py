"""Fairness between keys: who floods the queue holds up himself, and what each key gets is what it is due."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scheduler import LIMITS, run_to_end, sequence

from labsupport.engine.fairness import GENERATED_TOKEN_COST, PROMPT_TOKEN_COST, ServiceCounters, split_budget
from labsupport.engine.plan import Plan
from labsupport.engine.runners.modeled import ModeledRunner
from labsupport.engine.scheduler import Progress, Scheduler
from labsupport.engine.sequence import Sequence
from labsupport.engine.waiting import WaitingQueue


class Engine:
    """A scheduler over the modeled device, that notes who was let in, in order."""

    def __init__(self, **levers) -> None:
        limits = replace(LIMITS, cells=levers.pop("cells", LIMITS.cells))
        self.scheduler = Scheduler(limits, **{"slots": 2, "prefix_slots": 0} | levers)
        self.runner = ModeledRunner(limits)
        self.now = 0.0
        self.let_in: list[str] = []
        self._serial = 0

    def submit(
        self, name: str, key: str, tokens: list[int], max_tokens: int, *, priority: int = 0
    ) -> Sequence:
        """Queue a request; ten seconds are the patience for a step of priority."""
        self._serial += 1
        order = (self.now + 10.0 * priority, self._serial)
        new = sequence(name, tokens, max_tokens, order=order, key=key, priority=priority)
        new.arrived = self.now
        self.scheduler.submit(new)
        return new

    def step(self) -> tuple[Plan, list[Progress]]:
        self.now += 1.0
        plan = self.scheduler.schedule(self.now)
        self.let_in += [each.request_id for each in plan.sequences if each.admitted == self.now]
        progress = self.scheduler.commit(plan, self.runner.step(plan), self.now)
        assert self.scheduler.check_integrity() == []
        return plan, progress

    def steps(self) -> Iterator[Plan]:
        """Step until there is nothing to do."""
        while (plan := self.step()[0]) or self.scheduler.waiting:
            yield plan


@pytest.mark.parametrize(("fairness", "overtaken_by"), [("keys", range(0, 2)), ("none", range(38, 39))])
def test_one_request_of_another_key_does_not_wait_behind_a_flood(fairness, overtaken_by):
    # Given two slots, and a key that has sent forty requests
    engine = Engine(fairness=fairness)
    for index in range(40):
        engine.submit(f"flood {index}", "flooder", [index, 1, 2], 6)
    engine.step()
    # When another key sends one
    single = engine.submit("single", "other", [90, 91], 6)
    let_in_before = len(engine.let_in)
    for _ in engine.steps():
        pass
    # Then at most one of the flood goes before it: without fairness all that waited do
    assert engine.let_in.index("single") - let_in_before in overtaken_by
    assert single.finish_reason == "length"
    assert len(engine.let_in) == 41


def test_a_key_that_floods_with_long_prompts_does_not_take_all_of_every_step():
    # Given four slots, and a key whose prompts want all of every step for long
    engine = Engine(slots=4, cells=400)
    for index, length in enumerate((10, 10, 40)):
        engine.submit(f"long {index}", "flooder", list(range(length)), 8)
    while engine.scheduler.waiting:
        engine.step()
    # When another key sends a short one
    engine.submit("short", "other", [90, 91, 92], 2)
    # Then it is let in at once, with what it needs of half of what the decodes leave
    plan, progress = engine.step()
    lengths = {each.request_id: len(row.tokens) for row, each in zip(plan.rows, plan.sequences, strict=True)}
    assert lengths == {"long 0": 1, "long 1": 1, "long 2": 3, "short": 3}
    assert "short" in [each.sequence.request_id for each in progress]


def test_two_keys_that_always_wait_get_the_same_however_long_their_answers_are():
    # Given a key with short answers, and one with answers six times as long
    engine = Engine(slots=3, cells=64)
    for index in range(120):
        engine.submit(f"short {index}", "short", [index % 90, 1, 2], 4)
    for index in range(60):
        engine.submit(f"long {index}", "long", [index % 90, 1, 2], 24)
    served = {"short": 0, "long": 0}
    for _ in range(120):
        _, progress = engine.step()
        for each in progress:
            served[each.sequence.key] += 1
    # Then both were given about as many tokens, though the one sent far more requests and sent them first
    assert min(served.values()) > 100
    assert abs(served["short"] - served["long"]) <= 64
    assert {
        key for key in ("short", "long") if any(key == each.key for each in engine.scheduler.waiting)
    } == {
        "short",
        "long",
    }


@settings(max_examples=30, deadline=None)
@given(
    kinds=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 24)), min_size=2, max_size=4),
    slots=st.integers(1, 5),
    admission=st.sampled_from(["reserve", "preempt"]),
)
def test_between_keys_that_always_wait_the_service_differs_by_a_bounded_amount(kinds, slots, admission):
    # Given keys whose requests are of different sizes, each with more of them waiting than can be served
    engine = Engine(slots=slots, admission=admission)
    served = dict.fromkeys(map(str, range(len(kinds))), 0)
    serial = 0
    for _ in range(100):
        waiting = Counter(each.key for each in engine.scheduler.waiting)
        for key, (prompt, max_tokens) in zip(served, kinds, strict=True):
            for _ in range(slots + 1 - waiting[key]):
                serial += 1
                engine.submit(str(serial), key, [serial % 97] * prompt, max_tokens)
        plan, progress = engine.step()
        for each in plan.sequences:
            if each.admitted == engine.now:
                served[each.key] += PROMPT_TOKEN_COST * each.num_prompt
        for each in progress:
            served[each.sequence.key] += GENERATED_TOKEN_COST
    # Then no two of them are further apart than a fixed amount: twice the most that one choice can cost, a
    # prompt, or all that the cells can hold of answers in progress
    longest_prompt = max(prompt for prompt, _ in kinds)
    bound = 2 * (PROMPT_TOKEN_COST * longest_prompt + GENERATED_TOKEN_COST * LIMITS.cells)
    assert max(served.values()) - min(served.values()) <= bound


@settings(max_examples=30, deadline=None)
@given(
    flood=st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=60),
    singles=st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 40), st.integers(1, 8)), min_size=1, max_size=4
    ),
    admission=st.sampled_from(["reserve", "preempt"]),
    slots=st.integers(1, 4),
)
def test_nobody_starves_whatever_the_others_send(flood, singles, admission, slots):
    # Given a key that sends two requests with every step, for as long as this runs, and others that send one
    engine = Engine(slots=slots, admission=admission, prefix_slots=2)
    sent = 0
    wanted: list[tuple[Sequence, int]] = []
    for step in range(1000):
        for arrival, prompt, max_tokens in singles:
            if arrival == step:
                single = engine.submit(
                    f"single {len(wanted)}", f"key {len(wanted)}", [95] * prompt, max_tokens
                )
                wanted.append((single, len(engine.let_in)))
        for _ in range(2):
            prompt, max_tokens = flood[sent % len(flood)]
            engine.submit(f"flood {sent}", "flooder", [sent % 90] * prompt, max_tokens)
            sent += 1
        engine.step()
        if len(wanted) == len(singles) and all(single.finish_reason for single, _ in wanted):
            break
    # Then each of them has its answer, and was let in after few others, however long the flood's queue was
    assert [single.finish_reason for single, _ in wanted] == ["length"] * len(singles)
    for single, let_in_before in wanted:
        assert engine.let_in.index(single.request_id) - let_in_before <= 2 * slots + len(singles)


def test_a_key_is_owed_nothing_for_the_time_when_it_asked_for_nothing():
    # Given a key that was served for long while another was silent
    engine = Engine(slots=1)
    for index in range(30):
        engine.submit(f"first {index}", "busy", [index, 1], 4)
    for _ in engine.steps():
        pass
    engine.let_in.clear()
    # When both send many
    for index in range(10):
        engine.submit(f"busy {index}", "busy", [index, 1], 4)
    for index in range(10):
        engine.submit(f"silent {index}", "silent", [50 + index, 1], 4)
    for _ in engine.steps():
        pass
    # Then they take turns from the beginning
    assert {name.split()[0] for name in engine.let_in[:2]} == {"busy", "silent"}
    assert sum(name.startswith("silent") for name in engine.let_in[:10]) == 5


def test_a_weight_multiplies_a_keys_share():
    engine = Engine(slots=2, weights={"heavy": 3})
    for index in range(100):
        for key in ("heavy", "light"):
            engine.submit(f"{key} {index}", key, [index % 90, 1], 4)
    for _ in range(150):
        engine.step()
    heavy = sum(name.startswith("heavy") for name in engine.let_in)
    assert heavy / (len(engine.let_in) - heavy) == pytest.approx(3, rel=0.1)


def test_a_shared_prefix_is_not_paid_for_twice():
    # Given two keys with equal requests, of which one's begin alike
    engine = Engine(slots=1, prefix_slots=4, cells=200)
    for index in range(30):
        engine.submit(f"alike {index}", "alike", [*range(30), 50 + index], 2)
        engine.submit(f"unlike {index}", "unlike", [50 + index, *range(30)], 2)
    while len(engine.let_in) < 30:
        engine.step()
    # Then it gets more of them done for the same service
    alike = sum(name.startswith("alike") for name in engine.let_in)
    assert alike > 2 * (30 - alike)


def test_requests_without_a_key_are_one_tenant_together():
    engine = Engine(slots=1)
    for index in range(20):
        engine.submit(f"nobody {index}", "", [index, 1], 4)
    engine.step()
    engine.submit("somebody", "key", [90, 1], 4)
    for _ in engine.steps():
        pass
    assert engine.let_in.index("somebody") <= 2


@pytest.mark.parametrize(("fairness", "first"), [("keys", "yours"), ("none", "mine 9")])
def test_a_priority_below_zero_brings_a_request_forward_among_its_keys_own_only(fairness, first):
    # Given one slot, a key that was served last, another that waits, and ten more of the first's
    engine = Engine(slots=1, fairness=fairness)
    engine.submit("mine", "me", [1, 2], 4)
    engine.step()
    engine.submit("yours", "you", [3, 4], 4)
    for index in range(10):
        engine.submit(f"mine {index}", "me", [index, 5], 4, priority=-5 if index == 9 else 0)
    for _ in engine.steps():
        pass
    # Then the urgent one goes before the other nine, but before the other key's only where keys do not count
    assert engine.let_in[1] == first
    assert engine.let_in.index("mine 9") < engine.let_in.index("mine 0")


def test_a_priority_above_zero_gives_way_to_other_keys_for_as_long_as_it_says():
    # Given one slot, a request that gives way for 20 s, and rivals of another key that arrive faster than
    # they can be served
    engine = Engine(slots=1)
    low = engine.submit("low", "batch", [1, 2], 1, priority=2)
    for index in range(60):
        engine.submit(f"rival {index}", "chat", [3, 4], 1)
        engine.step()
    # Then it goes when that time has passed, and at once, for its key was served least
    assert low.admitted == 20.0
    # And where nobody else waits, it does not wait either
    alone = Engine(slots=1)
    alone.submit("low", "batch", [1, 2], 1, priority=100)
    alone.step()
    assert alone.let_in == ["low"]


def test_among_those_that_give_way_the_lower_number_goes_first():
    engine = Engine(slots=1)
    engine.submit("running", "x", [1], 3)
    engine.step()
    for priority in (3, 1, 2):
        engine.submit(f"{priority}", f"key {priority}", [1], 1, priority=priority)
    for _ in engine.steps():
        pass
    assert engine.let_in[1:] == ["1", "2", "3"]


def test_who_was_let_in_first_for_fairness_keeps_its_memory_from_those_it_overtook():
    # Given a flood that fills the cells, with memory given out optimistically
    engine = Engine(slots=4, admission="preempt")
    for index in range(20):
        engine.submit(f"flood {index}", "flooder", [index] * 6, 30)
    for _ in range(12):
        engine.step()
    # When another key's request is let in before the rest of it
    single = engine.submit("single", "other", [90] * 6, 30)
    preempted_after_admission = False
    for _ in engine.steps():
        if single.admitted is not None and not single.finish_reason:
            preempted_after_admission |= single.slot is None
            others = [each for each in engine.scheduler.running if each.admitted > single.admitted]
            assert all(each.place > single.place for each in others)
    # Then memory is taken from those who came later
    assert engine.scheduler.counters.preemptions > 0
    assert single.finish_reason == "length"


def test_a_turn_stays_until_something_happens_so_that_announcements_hold():
    # Given two keys that wait, and the one that has the turn
    queue = WaitingQueue(fair=True)
    mine, yours = (sequence(key, [1], 1, order=(0.0, index), key=key) for index, key in enumerate(("m", "y")))
    queue.add(mine)
    queue.add(yours)
    assert queue.first(0.0) is mine
    # When its key is served meanwhile (it has others that run), the turn is not taken back
    queue.charge(mine, generated_tokens=5)
    assert queue.first(1.0) is mine
    # But when something ends, it is reconsidered
    queue.reconsider()
    assert queue.first(1.0) is yours


def test_a_blocked_turn_is_not_passed_on_while_nothing_happens():
    # Given a device of 64 cells: one key's request that runs long, and its next, which does not fit beside it
    engine = Engine(slots=4)
    engine.submit("runs", "mine", [1, 2], 40)
    engine.submit("large", "mine", [3] * 20, 20)
    engine.step()
    engine.submit("small", "yours", [4], 1)
    plans = [engine.step()[0] for _ in range(2)]
    # Then while the first decodes, its key is charged with every token, and still no plan breaks its word
    before = plans[-1]
    for _ in range(before.unchanged_for - 1):
        plan, _ = engine.step()
        assert [row.slot for row in plan.rows] == [row.slot for row in before.rows]


def test_counters_lift_who_joins_to_the_least_of_those_who_wait():
    counters = ServiceCounters()
    counters.join("a", [])
    counters.charge("a", prompt_tokens=10)
    counters.join("b", ["a"])
    assert counters.of("b") == 10
    counters.charge("b", generated_tokens=3)
    assert counters.of("b") == 16
    # Who joins an empty queue is lifted to who waited last; nobody is ever lowered
    counters.leave("a")
    counters.leave("b")
    counters.join("c", [])
    assert counters.of("c") == 16
    counters.join("b", ["a"])
    assert counters.of("b") == 16


@given(
    budget=st.integers(0, 50),
    wants=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 30)), max_size=8),
)
def test_a_step_is_split_evenly_between_keys_and_nothing_of_it_is_left_while_somebody_wants_more(
    budget, wants
):
    shares = split_budget(budget, wants)
    assert all(0 <= share <= wanted for share, (_, wanted) in zip(shares, wants, strict=True))
    assert sum(shares) == min(budget, sum(wanted for _, wanted in wants))
    given_to = {
        key: sum(share for share, want in zip(shares, wants, strict=True) if want[0] == key) for key in "abc"
    }
    wanted_by = {key: sum(wanted for other, wanted in wants if other == key) for key in "abc"}
    hungry = [key for key in "abc" if given_to[key] < wanted_by[key]]
    for key in hungry:  # nobody has more than one that wants more, but for what cannot be split
        assert given_to[key] + 1 >= max(given_to.values())
    if budget >= len({key for key, _ in wants}):
        assert all(given_to[key] for key, _ in wants)
    # Within a key, half is the first one's, and the rest goes to whoever has least left
    for key in "abc":
        own = [(share, want[1]) for share, want in zip(shares, wants, strict=True) if want[0] == key]
        if not own:
            continue
        first, *others = own
        assert first[0] >= min(first[1], given_to[key] / 2)
        unserved = [wanted for share, wanted in others if share < wanted]
        assert all(wanted <= min(unserved) for share, wanted in others if share) if unserved else True


def test_a_short_prompt_does_not_stand_behind_a_long_one_of_its_own_key():
    # Given a prompt of forty tokens, which takes six steps, and one of four that comes after the first step
    engine = Engine(slots=2, step_tokens=8)
    long = engine.submit("long", "a", [1] * 40, 1)
    engine.step()
    short = engine.submit("short", "a", [2] * 4, 1)
    # Then half a step is enough for the short one, and the long one goes on all the while
    _, progress = engine.step()
    assert [each.sequence for each in progress] == [short]
    assert long.num_computed == 8 + 4


def test_equal_calls_give_equal_plans():
    def plans() -> list[tuple]:
        engine = Engine(slots=3, admission="preempt", prefix_slots=2)
        for index in range(30):
            engine.submit(str(index), f"key {index % 4}", [index % 5] * (1 + index % 9), 1 + index % 7)
        run = []
        while plan := engine.step()[0]:
            run.append((plan.operations, plan.rows))
        return run

    assert plans() == plans()


def test_without_keys_fairness_changes_nothing():
    def plans(fairness: str) -> list[tuple]:
        engine = Engine(slots=3, admission="preempt", prefix_slots=2, fairness=fairness)
        for index in range(30):
            engine.submit(
                str(index), "", [index % 5] * (1 + index % 9), 1 + index % 7, priority=index % 3 - 1
            )
        run = []
        while plan := engine.step()[0]:
            run.append((plan.operations, plan.rows))
        return run

    assert plans("keys") == plans("none")
    scheduler = Scheduler(LIMITS, slots=2)
    assert run_to_end(scheduler, ModeledRunner(LIMITS)) == 0
