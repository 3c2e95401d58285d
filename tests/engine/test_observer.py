"""What a watcher is shown is true, adds up, names nobody's words, and costs nothing once nobody watches."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest

from labsupport.engine.config import Admission
from labsupport.engine.messages import SamplingParams
from labsupport.engine.observer import Observer
from labsupport.engine.plan import RunnerLimits
from labsupport.engine.runners.modeled import ModeledRunner
from labsupport.engine.scheduler import Scheduler
from labsupport.engine.segments import Stretch, stretches
from labsupport.engine.sequence import Sequence
from labsupport.engine.snapshot import Snapshot, StepView, Watch, short_name

LIMITS = RunnerLimits(
    max_slots=8, cells=96, context_tokens=64, step_tokens=8, vocabulary_size=97, prefix_sharing="alias"
)
SYSTEM_PROMPT = list(range(1, 21))
ALWAYS = Watch(seconds=1e9, per_second=1e9)


class Engine:
    """The worker's loop without its process; every step takes one second of a clock of its own."""

    def __init__(
        self, limits: RunnerLimits = LIMITS, wish: Watch | None = ALWAYS, *, admission: Admission = "reserve"
    ) -> None:
        self.runner = ModeledRunner(limits)
        self.scheduler = Scheduler(limits, slots=4, prefix_slots=3, admission=admission)
        self.observer = Observer(self.scheduler)
        self.now = 0.0
        if wish:
            self.observer.watch(wish, self.now)

    def submit(self, request_id: str, tokens: list[int], max_tokens: int = 6) -> None:
        self.scheduler.submit(
            Sequence(
                request_id=request_id,
                tokens=list(tokens),
                params=SamplingParams(max_tokens=max_tokens, temperature=0),
                seed=0,
                order=(self.now, len(self.scheduler.waiting) + len(self.scheduler.running)),
                arrived=self.now,
            )
        )

    def step(self) -> Snapshot | None:
        plan = self.scheduler.schedule(self.now)
        self.scheduler.commit(plan, self.runner.step(plan), self.now)
        self.now += 1
        return self.observer.after_step(plan, self.now)

    def look(self) -> Snapshot:
        snapshot = self.step()
        assert snapshot is not None
        return snapshot


def check(snapshot: Snapshot, scheduler: Scheduler) -> None:
    """Everything that must hold of any snapshot."""
    kept = sum(segment.cells for segment in snapshot.segments if segment.is_kept)
    in_use = sum(segment.cells for segment in snapshot.segments if not segment.is_kept)
    assert (in_use, kept) == (snapshot.used_cells, snapshot.cached_cells)
    assert in_use + kept + scheduler.pool.num_free == snapshot.total_cells
    assert all(segment.cells > 0 for segment in snapshot.segments)
    for view in snapshot.running:
        held = [segment for segment in snapshot.segments if view.name in segment.holders]
        assert sum(segment.cells for segment in held) == view.computed_tokens
        ends = [segment.start + segment.cells for segment in held]
        assert [segment.start for segment in held] == [0, *ends[:-1]][: len(held)]
    places = [view.slot for view in snapshot.running]
    assert len(set(places)) == len(places)
    assert set(places) <= set(range(snapshot.slots))
    assert snapshot.num_waiting == len(scheduler.waiting)


@pytest.mark.parametrize("sharing", ["alias", "copy", "none"])
def test_the_cells_of_every_snapshot_add_up_whatever_comes_and_goes(sharing):
    chance = random.Random(7)
    engine = Engine(replace(LIMITS, prefix_sharing=sharing))
    shared = 0
    for number in range(400):
        if chance.random() < 0.3:
            stem = SYSTEM_PROMPT[: chance.randrange(21)]
            own = [chance.randrange(97) for _ in range(chance.randint(1, 20))]
            engine.submit(f"r-{number:06}-0", stem + own, chance.randint(1, 12))
        if engine.scheduler.running and chance.random() < 0.05:
            engine.scheduler.finish(chance.choice(engine.scheduler.running).request_id, "abort")
        snapshot = engine.look()
        check(snapshot, engine.scheduler)
        shared += any(len(segment.holders) > 1 for segment in snapshot.segments)
    assert (shared > 0) == (sharing == "alias")


def test_a_prefix_that_two_sequences_share_is_there_once_with_both_names():
    engine = Engine()
    engine.submit("chat-aaaaaa-0", [*SYSTEM_PROMPT, 50, 51])
    for _ in range(3):  # its prompt takes three steps of eight
        engine.look()
    engine.submit("chat-bbbbbb-0", [*SYSTEM_PROMPT, 60])

    segments = engine.look().segments

    (common,) = [segment for segment in segments if len(segment.holders) == 2]
    assert (common.start, common.cells, common.holders) == (0, 20, ("aaaaaa", "bbbbbb"))
    assert sum(segment.cells for segment in segments if "bbbbbb" in segment.holders) == 21
    assert sum(segment.cells for segment in segments) == engine.scheduler.pool.num_used


def test_what_a_finished_sequence_leaves_is_shown_as_kept():
    engine = Engine()
    engine.submit("chat-aaaaaa-0", SYSTEM_PROMPT, max_tokens=1)
    while engine.scheduler.running or engine.scheduler.waiting:
        snapshot = engine.look()

    (segment,) = snapshot.segments
    assert segment.is_kept
    assert segment.holders == ("kept 0",)
    assert snapshot.cached_cells == segment.cells == len(SYSTEM_PROMPT)


def test_a_prompt_is_seen_in_chunks_beside_the_decodes_of_others():
    engine = Engine()
    engine.submit("chat-aaaaaa-0", [5], max_tokens=20)
    engine.look()
    engine.submit("chat-bbbbbb-0", SYSTEM_PROMPT)

    seen = [engine.look() for _ in range(4)]

    assert [snapshot.steps for snapshot in seen] == [
        (StepView(1, 7),), (StepView(1, 7),), (StepView(1, 6),), (StepView(2, 0),),
    ]  # fmt: skip
    assert [view.phase for view in seen[1].running] == ["decode", "prompt"]
    assert [view.step_tokens for view in seen[1].running] == [1, 7]
    assert [view.phase for view in seen[3].running] == ["decode", "decode"]
    assert [snapshot.generated_tokens for snapshot in seen] == [1, 1, 2, 2]


def test_a_sequence_keeps_its_place_in_the_batch_and_a_newcomer_takes_a_free_one():
    engine = Engine()
    engine.submit("chat-aaaaaa-0", [1], max_tokens=2)
    engine.submit("chat-bbbbbb-0", [2], max_tokens=9)
    assert {view.name: view.slot for view in engine.look().running} == {"aaaaaa": 0, "bbbbbb": 1}
    assert {view.name: view.slot for view in engine.look().running} == {"bbbbbb": 1}
    engine.submit("chat-cccccc-0", [3], max_tokens=9)

    assert {view.name: view.slot for view in engine.look().running} == {"bbbbbb": 1, "cccccc": 0}


def test_who_waits_is_shown_in_order_and_counted():
    engine = Engine()
    for number in range(7):
        engine.submit(f"chat-{number:06}-0", [number], max_tokens=9)
    engine.look()
    snapshot = engine.look()

    assert [view.name for view in snapshot.waiting] == ["000004", "000005", "000006"]
    assert [view.waited_seconds for view in snapshot.waiting] == [2.0, 2.0, 2.0]


def test_snapshots_come_at_most_as_often_as_wished_and_no_step_is_lost_between():
    engine = Engine(wish=Watch(seconds=1000, per_second=0.25))  # one in four seconds, and a step takes one
    engine.submit("chat-aaaaaa-0", [1], max_tokens=13)

    seen = [snapshot for _ in range(13) if (snapshot := engine.step())]

    assert [len(snapshot.steps) for snapshot in seen] == [1, 4, 4, 4]
    assert sum(snapshot.generated_tokens for snapshot in seen) == 13


def test_an_engine_that_comes_to_rest_is_shown_at_rest_at_once():
    engine = Engine(wish=Watch(seconds=1000, per_second=0.001))
    engine.submit("chat-aaaaaa-0", [1], max_tokens=3)
    assert [snapshot is not None for snapshot in (engine.step(), engine.step(), engine.step())] == [
        True,
        False,
        False,
    ]

    assert engine.look().running == ()
    assert engine.step() is None


def test_a_wish_ends_by_itself_and_nothing_is_kept_of_it():
    engine = Engine(wish=Watch(seconds=3, per_second=0.5))
    engine.submit("chat-aaaaaa-0", [1], max_tokens=20)

    assert [engine.step() is not None for _ in range(6)] == [True, False, False, False, False, False]
    assert vars(engine.observer)["_steps"] == []
    assert vars(engine.observer)["_places"] == {}
    assert engine.step() is None  # nobody's wish: nothing


def test_without_a_wish_or_after_its_end_there_are_no_snapshots():
    engine = Engine(wish=None)
    engine.submit("chat-aaaaaa-0", [1], max_tokens=20)
    assert engine.step() is None

    engine.observer.watch(ALWAYS, engine.now)
    assert engine.step() is not None
    engine.observer.watch(Watch(seconds=0), engine.now)
    assert engine.step() is None


def test_no_token_and_no_whole_request_id_is_in_a_snapshot():
    engine = Engine(replace(LIMITS, vocabulary_size=10**9))
    secret = [777_777_770 + number for number in range(9)]
    engine.submit("chatcmpl-0123456789abcdef-0", secret, max_tokens=4)
    engine.submit("chatcmpl-0123456789abcdef-3", secret, max_tokens=4)
    sent = b"".join(msgspec.json.encode(engine.look()) for _ in range(4))

    assert b"7777777" not in sent
    assert b"0123456" not in sent
    assert b'"012345"' in sent
    assert b'"012345-3"' in sent


@pytest.mark.parametrize(
    ("request_id", "name"),
    [
        ("chatcmpl-0123456789abcdef-0", "012345"),
        ("cmpl-0123456789abcdef-12", "012345-12"),
        ("a-0", "a"),
        ("alone", "alone"),
        ("of another kind", "her kind"),
    ],
)
def test_a_request_has_a_short_name(request_id, name):
    assert short_name(request_id) == name


def test_stretches_follow_who_shares_what():
    cells = {3: [10, 11, 12, 13], 1: [10, 11, 20], 7: [10, 11, 12, 30, 31], 4: [40], 9: []}

    assert list(stretches(cells)) == [
        Stretch(0, 2, (3, 1, 7)),
        Stretch(2, 1, (3, 7)),
        Stretch(3, 1, (3,)),
        Stretch(3, 2, (7,)),
        Stretch(2, 1, (1,)),
        Stretch(0, 1, (4,)),
    ]


def test_what_is_computed_again_after_a_preemption_is_counted_apart():
    # Given memory for less than the four that are let in, so that some lose theirs and are computed again
    engine = Engine(admission="preempt")
    for number in range(4):
        engine.submit(f"chat-{number:06}-0", [number] * 20, max_tokens=40)
    seen = []
    while engine.scheduler.running or engine.scheduler.waiting:
        seen.append(engine.look())
    counters = engine.scheduler.counters

    # Then each prompt and each answer counts once, whatever was computed twice
    assert counters.preemptions > 0
    assert counters.recomputed_tokens > 0
    assert counters.prompt_tokens == sum(snapshot.prompt_tokens for snapshot in seen) == 4 * 20
    assert counters.generated_tokens == sum(snapshot.generated_tokens for snapshot in seen) == 4 * 40
    assert counters.recomputed_tokens == sum(snapshot.recomputed_tokens for snapshot in seen)
    # And the steps say which is which: of what was generated, all but the first tokens are decodes
    steps = [step for snapshot in seen for step in snapshot.steps]
    assert sum(step.decodes for step in steps) == 4 * 39
    assert sum(step.prompt_tokens for step in steps) == 4 * 20
    assert sum(step.recomputed_tokens for step in steps) == counters.recomputed_tokens
    assert all(step.decodes + step.prompt_tokens + step.recomputed_tokens <= 8 for step in steps)
