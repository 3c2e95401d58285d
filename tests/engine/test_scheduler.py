"""The scheduler and its pool, without a model: whatever arrives, leaves or is aborted, in whatever order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from labsupport.engine.messages import SamplingParams
from labsupport.engine.plan import CellsExhausted, Free, Plan, RunnerLimits, Share
from labsupport.engine.runners.modeled import ModeledRunner
from labsupport.engine.scheduler import Scheduler
from labsupport.engine.sequence import Sequence

LIMITS = RunnerLimits(
    max_slots=8, cells=64, context_tokens=48, step_tokens=8, vocabulary_size=97, prefix_sharing="alias"
)
END = 13
STEMS = [[], [1], list(range(1, 12)), list(range(1, 26))]


def sequence(
    name: str,
    tokens: list[int],
    max_tokens: int,
    *,
    order: tuple[float, int],
    key: str = "",
    priority: int = 0,
) -> Sequence:
    return Sequence(
        request_id=name,
        tokens=list(tokens),
        params=SamplingParams(max_tokens=max_tokens, temperature=0),
        seed=0,
        order=order,
        key=key,
        priority=priority,
    )


def run_to_end(scheduler: Scheduler, runner: ModeledRunner, *, most_steps: int = 10_000) -> int:
    """Step until nothing is left to do; how many steps it took."""
    steps = 0
    while plan := scheduler.schedule(float(steps)):
        try:
            scheduler.commit(plan, runner.step(plan), float(steps))
        except CellsExhausted:
            scheduler.retreat(plan)
        assert scheduler.check_integrity() == []
        steps += 1
        assert steps <= most_steps
    return steps


def what_it_says_alone(runner: ModeledRunner, prompt: list[int], max_tokens: int) -> list[int]:
    tokens = list(prompt)
    while len(tokens) < len(prompt) + max_tokens:
        tokens.append(runner.next_token(tokens))
        if tokens[-1] in runner.end_tokens:
            break
    return tokens


class SchedulerMachine(RuleBasedStateMachine):
    """Requests come, go and run in any order; the modeled device keeps books of its own and objects."""

    @initialize(
        sharing=st.sampled_from(["alias", "copy", "none"]),
        admission=st.sampled_from(["reserve", "preempt"]),
        slots=st.integers(1, 5),
        prefix_slots=st.integers(0, 3),
        step_tokens=st.integers(5, 8),
        fairness=st.sampled_from(["keys", "none"]),
    )
    def build(self, sharing, admission, slots, prefix_slots, step_tokens, fairness):
        self.admission = admission
        self.runner = ModeledRunner(replace(LIMITS, prefix_sharing=sharing), end_tokens=frozenset([END]))
        self.scheduler = Scheduler(
            self.runner.limits,
            slots=slots,
            prefix_slots=prefix_slots,
            step_tokens=step_tokens,
            admission=admission,
            fairness=fairness,
            weights={"b": 3},
            end_tokens=self.runner.end_tokens,
        )
        self.now = 0.0
        self.submitted: dict[str, tuple[list[int], Sequence]] = {}
        self.promise: tuple[Plan, int] | None = None

    @rule(
        stem=st.sampled_from(STEMS),
        tail=st.lists(st.integers(0, 96), min_size=1, max_size=10),
        max_tokens=st.integers(1, 40),
        priority=st.integers(-2, 2),
        key=st.sampled_from(["", "a", "b"]),
    )
    def submit(self, stem, tail, max_tokens, priority, key):
        name = str(len(self.submitted))
        max_tokens = min(max_tokens, LIMITS.context_tokens - len(stem + tail))
        new = sequence(
            name,
            stem + tail,
            max_tokens,
            order=(self.now + 10 * priority, len(self.submitted)),
            key=key,
            priority=priority,
        )
        self.submitted[name] = (stem + tail, new)
        self.scheduler.submit(new)
        self.promise = None

    @rule(pick=st.randoms(use_true_random=False))
    def abort(self, pick):
        live = [name for name, (_, each) in self.submitted.items() if each.finish_reason is None]
        if live:
            assert self.scheduler.finish(pick.choice(live), "abort") is not None
            self.promise = None

    @rule(count=st.integers(1, 12))
    def step(self, count):
        for _ in range(count):
            self.now += 1
            plan = self.scheduler.schedule(self.now)
            self.check_promise(plan)
            assert len(plan.rows) <= self.scheduler.slots
            assert sum(len(row.tokens) for row in plan.rows) <= self.scheduler.step_tokens
            progress = self.scheduler.commit(plan, self.runner.step(plan), self.now)
            if any(each.sequence.finish_reason == "stop" for each in progress):
                self.promise = None
            assert self.scheduler.check_integrity() == []

    @rule(pick=st.randoms(use_true_random=False))
    def abort_while_a_step_runs(self, pick):
        plan = self.scheduler.schedule(self.now)
        drawn = self.runner.step(plan)
        self.abort(pick)
        self.promise = None
        self.scheduler.commit(plan, drawn, self.now)

    def check_promise(self, plan: Plan) -> None:
        """The plan before said for how many steps nothing changes; this one is among them."""
        if self.promise:
            before, left = self.promise
            assert not plan.operations
            assert [(row.slot, row.start, len(row.tokens)) for row in plan.rows] == [
                (row.slot, row.start + 1, 1) for row in before.rows
            ]
            self.promise = (plan, left - 1) if left > 1 else None
        if not self.promise and plan.unchanged_for > 1:
            self.promise = (plan, plan.unchanged_for - 1)

    @invariant()
    def books_are_right(self):
        assert self.scheduler.check_integrity() == []
        if self.admission == "reserve":
            assert self.scheduler.counters.preemptions == 0, "memory was promised twice"

    def teardown(self):
        if not hasattr(self, "scheduler"):
            return
        run_to_end(self.scheduler, self.runner)
        for name, (prompt, each) in self.submitted.items():
            assert each.finish_reason is not None, f"request {name} was lost"
            alone = what_it_says_alone(self.runner, prompt, each.params.max_tokens)
            if each.finish_reason == "abort":
                assert each.tokens == alone[: len(each.tokens)]
            else:
                assert each.tokens == alone
        assert self.scheduler.pool.num_used == 0
        assert self.runner.used_cells == self.scheduler.pool.num_cached


TestAnyOrderOfEvents = SchedulerMachine.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


def build(**levers) -> tuple[Scheduler, ModeledRunner]:
    limits = replace(LIMITS, cells=levers.pop("cells", LIMITS.cells))
    return Scheduler(limits, **{"slots": 4, "prefix_slots": 4} | levers), ModeledRunner(limits)


def test_a_large_request_is_not_starved_by_a_stream_of_small_ones():
    # Given a large request that needs most of the cells, behind small ones that keep coming
    scheduler, runner = build(prefix_slots=0)
    for index in range(4):
        scheduler.submit(sequence(f"first {index}", [index], 12, order=(0.0, index)))
    large = sequence("large", list(range(30)), 18, order=(1.0, 100))
    scheduler.submit(large)
    # When two more small ones arrive with every step
    for step in range(60):
        now = 2.0 + step
        for twin in range(2):
            scheduler.submit(sequence(f"{step} {twin}", [50 + twin], 12, order=(now, 200 + 2 * step + twin)))
        plan = scheduler.schedule(now)
        scheduler.commit(plan, runner.step(plan), now)
    # Then it was served: nobody overtakes the head of the queue
    assert large.finish_reason == "length"


@pytest.mark.parametrize(("priority", "overtakes"), [(0, 0), (3, 30)])
def test_a_low_priority_waits_longer_but_never_for_ever(priority, overtakes):
    # Given one slot, and a patience of 10 s per priority step, and a rival that arrives every second
    scheduler, runner = build(slots=1, prefix_slots=0)
    scheduler.submit(sequence("low", [1, 2], 1, order=(0.0 + 10.0 * priority, 0)))
    served = []
    for second in range(50):
        scheduler.submit(sequence(str(second), [3, 4], 1, order=(second + 0.5, second + 1)))
        plan = scheduler.schedule(float(second))
        served += [each.sequence.request_id for each in scheduler.commit(plan, runner.step(plan), second)]
    # Then exactly those who arrived within its patience went first
    assert served.index("low") == overtakes


def test_decoding_goes_on_while_a_long_prompt_is_computed_in_chunks():
    # Given a sequence that decodes
    scheduler, runner = build(prefix_slots=0)
    scheduler.submit(sequence("short", [1], 20, order=(0.0, 0)))
    plan = scheduler.schedule(0.0)
    scheduler.commit(plan, runner.step(plan), 0.0)
    # When a prompt of several steps' worth arrives
    scheduler.submit(sequence("long", list(range(40)), 2, order=(1.0, 1)))
    # Then every step still decodes, and the prompt takes the rest of the budget
    for start in range(0, 40, 7):
        plan = scheduler.schedule(1.0)
        assert [(len(row.tokens), row.start) for row in plan.rows][1] == (min(7, 40 - start), start)
        progress = scheduler.commit(plan, runner.step(plan), 1.0)
        assert progress[0].sequence.request_id == "short"


@pytest.mark.parametrize("length", [24, 6])
def test_a_prefix_in_flight_is_computed_once_and_shared(length):
    # Given four prompts that arrive together with three steps' worth in common, or with less than one's
    scheduler, runner = build(cells=200)
    stem = list(range(length))
    for index in range(4):
        scheduler.submit(sequence(str(index), [*stem, 50 + index], 3, order=(0.0, index)))
    run_to_end(scheduler, runner)
    # Then the first computed them and the others did not
    assert scheduler.counters.prompt_tokens == length + 4 * 1
    assert scheduler.counters.prefix_hit_tokens == 3 * length


@pytest.mark.parametrize(("scope", "hits"), [("all", 4), ("key", 3)])
def test_whose_prefixes_are_found_is_a_setting(scope, hits):
    # Given two keys' prompts that begin alike, together and, once those have ended, again
    scheduler, runner = build(cells=200, prefix_scope=scope)
    stem = list(range(24))
    for turn in range(2):
        for index, key in enumerate(("mine", "mine", "yours")[turn:]):
            name = f"{key} {turn} {index}"
            scheduler.submit(sequence(name, [*stem, 50 + index], 3, order=(0.0, index), key=key))
        run_to_end(scheduler, runner)
        assert scheduler.check_integrity() == []
    # Then all but the first share them, or all but the first of each key
    assert scheduler.counters.prefix_hit_tokens == hits * 24


def test_without_prefix_slots_nothing_is_shared():
    scheduler, runner = build(cells=200, prefix_slots=0)
    for index in range(4):
        scheduler.submit(sequence(str(index), list(range(1, 26)), 3, order=(0.0, index)))
    run_to_end(scheduler, runner)
    assert scheduler.counters.prompt_tokens == 4 * 25
    assert scheduler.counters.prefix_hit_tokens == 0


def test_a_finished_sequence_is_kept_for_its_prefix_until_the_room_is_needed():
    # Given a finished sequence
    scheduler, runner = build()
    scheduler.submit(sequence("first", list(range(20)), 5, order=(0.0, 0)))
    run_to_end(scheduler, runner)
    assert scheduler.pool.num_used == 0
    assert scheduler.pool.num_cached == 24
    # When a prompt begins like it, then it is shared, all but the last token
    again = sequence("again", list(range(20)), 5, order=(1.0, 1))
    scheduler.submit(again)
    plan = scheduler.schedule(1.0)
    assert [type(operation) for operation in plan.operations] == [Share]
    assert again.num_cached == 19
    scheduler.commit(plan, runner.step(plan), 1.0)
    run_to_end(scheduler, runner)
    # And when a stranger needs nearly all cells, the kept ones go
    scheduler.submit(sequence("stranger", [90] * 40, 8, order=(2.0, 2)))
    operations = []
    while plan := scheduler.schedule(2.0):
        operations += plan.operations
        scheduler.commit(plan, runner.step(plan), 2.0)
    assert sum(isinstance(operation, Free) for operation in operations) == 2


def test_what_nobody_asks_for_is_kept_only_while_nobody_runs():
    scheduler, runner = build(cells=200)

    def came(name: str, token: int) -> Sequence:
        asked = sequence(name, [token] * 20, 2, order=(0.0, 0))
        scheduler.submit(asked)
        return asked

    for stranger in range(20, 28):
        came(f"stranger {stranger}", stranger)
        run_to_end(scheduler, runner)
        assert scheduler.pool.num_cached > 0
    again = came("the last one once more", 27)
    run_to_end(scheduler, runner)
    assert again.num_cached == 19
    came("another stranger", 50)
    came("and one more", 51)
    scheduler.schedule(0.0)
    assert len(scheduler.memory.cache) == 1  # somebody came back, and may again


def test_reserve_never_takes_memory_back_and_preempt_does():
    prompts = [[index] * 10 for index in range(4)]
    preemptions = {}
    for admission in ("reserve", "preempt"):
        scheduler, runner = build(admission=admission, prefix_slots=0)
        sequences = [sequence(str(i), prompt, 30, order=(0.0, i)) for i, prompt in enumerate(prompts)]
        for each in sequences:
            scheduler.submit(each)
        run_to_end(scheduler, runner)
        # Then what was preempted was computed again, and says what it would have said alone
        assert [each.tokens for each in sequences] == [
            what_it_says_alone(runner, prompt, 30) for prompt in prompts
        ]
        preemptions[admission] = scheduler.counters.preemptions
    assert preemptions["reserve"] == 0 < preemptions["preempt"]


def test_a_kept_prefix_that_is_shared_is_not_counted_as_room_too():
    # Given 25 kept cells, and a sequence that may come to hold 29 of 64
    scheduler, runner = build()
    scheduler.submit(sequence("kept", list(range(25)), 1, order=(0.0, 0)))
    run_to_end(scheduler, runner)
    scheduler.submit(sequence("other", [90, 91], 28, order=(1.0, 1)))
    # When one comes that shares the 25 and may come to hold 47
    scheduler.submit(sequence("sharer", [*range(25), 95], 22, order=(2.0, 2)))
    plan = scheduler.schedule(2.0)
    # Then it waits, for 29 and 47 are more than 64
    assert [each.request_id for each in plan.sequences] == ["other"]
    scheduler.commit(plan, runner.step(plan), 2.0)
    run_to_end(scheduler, runner)
    assert scheduler.counters.preemptions == 0


def test_a_device_with_less_room_than_it_said_delays_requests_but_loses_none():
    # Given a device that has only half of the cells that the scheduler counts on
    scheduler, _ = build(prefix_slots=2, admission="preempt")
    runner = ModeledRunner(replace(LIMITS, cells=32))
    sequences = [sequence(str(index), [index] * 10, 15, order=(0.0, index)) for index in range(4)]
    for each in sequences:
        scheduler.submit(each)
    run_to_end(scheduler, runner)
    assert [each.num_generated for each in sequences] == [15] * 4


def test_a_request_that_the_device_cannot_hold_even_alone_ends_with_an_error():
    scheduler, _ = build(prefix_slots=0)
    runner = ModeledRunner(replace(LIMITS, cells=16))
    too_large, small = sequence("a", [1] * 20, 2, order=(0.0, 0)), sequence("b", [2] * 5, 2, order=(1.0, 1))
    scheduler.submit(too_large)
    scheduler.submit(small)
    run_to_end(scheduler, runner)
    assert (too_large.finish_reason, small.finish_reason) == ("error", "length")


@pytest.mark.parametrize(
    ("tokens", "max_tokens", "complaint"),
    [
        ([], 1, "at least one"),
        ([1], 0, "at least one"),
        ([1] * 40, 9, "over the context"),
        ([1] * 5, 48, "over"),
    ],
)
def test_a_sequence_that_could_never_run_is_not_queued(tokens, max_tokens, complaint):
    scheduler, _ = build()
    with pytest.raises(ValueError, match=complaint):
        scheduler.submit(sequence("x", tokens, max_tokens, order=(0.0, 0)))
    assert not scheduler.schedule(0.0)


def test_steps_in_which_nothing_changes_are_announced_exactly():
    # Given two sequences that decode for as long as their max_tokens say, and one that waits for a slot
    scheduler, runner = build(slots=2, prefix_slots=0)
    for index, max_tokens in enumerate((5, 9, 4)):
        scheduler.submit(sequence(str(index), [index], max_tokens, order=(0.0, index)))
    announced = []
    while plan := scheduler.schedule(0.0):
        announced.append((len(plan.rows), plan.unchanged_for))
        scheduler.commit(plan, runner.step(plan), 0.0)
    # A prompt's step promises nothing. Then the first sequence has 4 tokens to go, until the third takes its
    # place; then two have 3 to go; and the last plan only empties the slots.
    assert announced[:5] == [(2, 1), (2, 4), (2, 3), (2, 2), (2, 1)]
    assert announced[5:] == [(2, 1), (2, 3), (2, 2), (2, 1), (0, 1)]


def test_no_announcement_reaches_past_the_step_that_has_to_drop_a_kept_prefix():
    # Given 25 kept cells of 64, and a sequence that will come to need 47
    scheduler, runner = build()
    scheduler.submit(sequence("kept", list(range(25)), 1, order=(0.0, 0)))
    run_to_end(scheduler, runner)
    scheduler.submit(sequence("long", [90, 91], 46, order=(1.0, 1)))
    plans = []
    while plan := scheduler.schedule(0.0):
        plans.append(plan)
        scheduler.commit(plan, runner.step(plan), 0.0)
    # Then the plan that drops them is announced by none before it
    dropping = next(place for place, plan in enumerate(plans) if plan.operations)
    assert 0 < dropping < 45
    assert all(place + plan.unchanged_for <= dropping for place, plan in enumerate(plans[:dropping]))
    assert plans[dropping - 2].unchanged_for == 2


def test_what_a_sequence_generates_does_not_change_who_is_let_in_beside_it():
    # Given one that will hold 31 of 64 cells, and one that needs 47 and begins with what the first says
    scheduler, runner = build()
    said = what_it_says_alone(runner, [1, 2], 30)
    scheduler.submit(sequence("first", [1, 2], 30, order=(0.0, 0)))
    scheduler.submit(sequence("second", said[:30], 18, order=(1.0, 1)))
    plans = []
    while not plans or "first" in scheduler._sequences:
        plans.append(scheduler.schedule(0.0))
        scheduler.commit(plans[-1], runner.step(plans[-1]), 0.0)
    # Then it is not let in half-way, for the first had announced that nothing changes until its end
    assert [len(plan.rows) for plan in plans] == [1] * 30
    assert plans[1].unchanged_for == 29
    # And afterwards it shares what the first has left
    second = scheduler.schedule(0.0).sequences[0]
    assert (second.request_id, second.num_cached) == ("second", 29)
