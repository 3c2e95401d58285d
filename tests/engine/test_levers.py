"""Every lever is documented, can be turned everywhere, reaches the engine and has the effect that it says."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace

import msgspec
import pytest
from test_scheduler import LIMITS, run_to_end, sequence

from labsupport.cli import serve
from labsupport.engine.config import ConfigRefused, EngineConfig
from labsupport.engine.levers import Lever, levers
from labsupport.engine.plan import Drawn
from labsupport.engine.runners.modeled import ModeledRunner
from labsupport.engine.runners.threads import LEAST_TRIES, MOST_TRIES, ThreadPolicy, thread_count, waiting
from labsupport.engine.scheduler import Scheduler
from labsupport.server.run import Settings

LEVERS = {lever.field: lever for lever in levers()}
NOT_LEVERS = {"model", "engine", "quantization", "key_weights"}


def another_value(lever: Lever) -> object:
    if lever.choices:
        return next(choice for choice in lever.choices if choice != lever.default)
    return lever.kind(17)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    serve.configure(made)
    return made


def test_every_setting_of_the_engine_is_a_lever_or_said_not_to_be_one():
    names = {field.name for field in msgspec.structs.fields(EngineConfig)}
    assert set(LEVERS) == names - NOT_LEVERS
    assert all(f"\n    {name}: " in str(EngineConfig.__doc__) for name in NOT_LEVERS)


def test_a_lever_says_what_it_does_what_it_costs_and_when_to_turn_it():
    for lever in LEVERS.values():
        assert lever.text.endswith("."), lever.field
        assert lever.text.count(". ") >= 2, lever.field


def test_help_shows_every_lever_with_its_text_and_its_default():
    shown = " ".join(parser().format_help().split())
    for lever in LEVERS.values():
        text = " ".join(f"{lever.text} (default: {lever.default})".split())
        assert text.replace(" ", "") in shown.replace(" ", ""), lever.field
        assert f" {lever.option} " in shown


@pytest.mark.parametrize("lever", LEVERS.values(), ids=LEVERS)
def test_a_lever_on_the_command_line_turns_itself_and_nothing_else(lever):
    wanted = another_value(lever)
    options = parser().parse_args([lever.option, str(wanted)])

    turned = serve.settings(options).levers

    assert msgspec.structs.asdict(turned) == msgspec.structs.asdict(EngineConfig(model="")) | {
        lever.field: wanted
    }
    assert type(getattr(turned, lever.field)) is type(lever.default)


def test_the_command_line_without_options_is_the_settings_without_arguments(monkeypatch):
    monkeypatch.delenv("LABSUPPORT_MODEL", raising=False)
    assert serve.settings(parser().parse_args([])) == Settings()
    options = {action.dest for action in parser()._actions} - {"help"}
    assert options == {field.name for field in fields(Settings)} - {"levers"} | set(LEVERS)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"fairness": "weights"}, "fairness is 'weights'"),
        ({"prompt_threads": 1000}, "prompt_threads is 1000"),
        ({"patience_seconds": float("nan")}, "patience_seconds is nan"),
        ({"patience_seconds": -1.0}, "patience_seconds is -1"),
        ({"prefix_slots": -1}, "prefix_slots is -1"),
        ({"key_weights": {"alice": 0}}, "weight of the key alice is 0"),
    ],
)
def test_an_impossible_value_is_refused_with_what_was_given(tiny_model, settings, complaint):
    with pytest.raises(ConfigRefused, match=complaint):
        EngineConfig(model=str(tiny_model), **settings).checked()


def scheduler_for(**settings) -> Scheduler:
    limits = replace(LIMITS, cells=8000, context_tokens=2000, step_tokens=512, max_slots=40)
    return Scheduler.for_config(EngineConfig(model="", **settings), ModeledRunner(limits))


@pytest.mark.parametrize("step_tokens", [16, 64, 256])
def test_a_prompt_never_adds_more_than_the_budget_to_a_step_that_decodes(step_tokens):
    # Given eight sequences that decode
    scheduler = scheduler_for(step_tokens=step_tokens, slots=9)
    runner = ModeledRunner(scheduler.limits)
    for index in range(8):
        scheduler.submit(sequence(str(index), [index], 400, order=(0.0, index)))
    for _ in range(3):
        plan = scheduler.schedule(0.0)
        scheduler.commit(plan, runner.step(plan), 0.0)
    # When a prompt of 1,500 tokens comes
    scheduler.submit(sequence("long", [9] * 1500, 1, order=(1.0, 9)))
    # Then it is computed in chunks of what the decodes leave, and they get a token with every one of them
    steps = 0
    while "long" in scheduler._sequences:
        plan = scheduler.schedule(1.0)
        lengths = [len(row.tokens) for row in plan.rows]
        assert lengths[:8] == [1] * 8
        assert sum(lengths) <= step_tokens
        progress = scheduler.commit(plan, runner.step(plan), 1.0)
        assert sum(each.sequence.request_id != "long" for each in progress) == 8
        steps += 1
    assert steps == -(-1500 // (step_tokens - 8))


def test_slots_are_how_many_run_at_once():
    for slots in (1, 3):
        scheduler = scheduler_for(slots=slots)
        for index in range(5):
            scheduler.submit(sequence(str(index), [index], 4, order=(0.0, index)))
        assert len(scheduler.schedule(0.0).rows) == slots


def test_prefix_slots_fairness_weights_and_admission_reach_the_scheduler():
    def let_in(**settings) -> tuple[list[str], Scheduler]:
        """The order in which requests with a long common prefix are let in, one at a time."""
        scheduler = scheduler_for(slots=1, **settings)
        for index in range(12):
            key = "other" if index > 7 else "flooder"
            scheduler.submit(sequence(f"{key} {index}", [*range(200), 7], 2, order=(0.0, index), key=key))
        order = []
        runner = ModeledRunner(scheduler.limits)
        while plan := scheduler.schedule(0.0):
            order += [each.request_id.split()[0] for each in plan.sequences if not each.num_generated]
            scheduler.commit(plan, runner.step(plan), 0.0)
        return [key for key, before in zip(order, [None, *order], strict=False) if key != before], scheduler

    turns, scheduler = let_in(fairness="none", prefix_slots=0)
    assert turns == ["flooder", "other"]
    assert scheduler.counters.prefix_hit_tokens == 0
    # Fair, the first pays for the prefix, so the other's four that share it come next
    turns, scheduler = let_in()
    assert turns == ["flooder", "other", "flooder"]
    assert scheduler.counters.prefix_hit_tokens > 11 * 190
    # With a weight, the price counts for less
    assert let_in(key_weights={"flooder": 1000})[0][:3] == ["flooder", "other", "flooder"]
    assert len(let_in(key_weights={"flooder": 1000})[0]) > 3
    # And cells for the worst case let fewer in than cells for the prompt
    counts = {}
    for admission in ("reserve", "preempt"):
        scheduler = scheduler_for(admission=admission, slots=8)
        for index in range(8):
            scheduler.submit(sequence(str(index), [index], 1900, order=(0.0, index)))
        counts[admission] = len(scheduler.schedule(0.0).rows)
    assert counts == {"reserve": 4, "preempt": 8}


def test_prompts_take_threads_of_their_own_where_asked():
    usable = thread_count(10_000)
    assert ThreadPolicy.of(1, 0) == ThreadPolicy(single=1, decode=1, prompt=1)
    assert ThreadPolicy.of(1, 10_000) == ThreadPolicy(single=1, decode=1, prompt=usable)
    assert ThreadPolicy.of(0, 0).decode == thread_count(0)
    policy = ThreadPolicy(single=1, decode=2, prompt=3)
    assert [policy.for_step(rows) for rows in ([1], [1, 1], [1, 2], [5])] == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("of_one", "of_many", "single", "decode"),
    [
        ({8: 1.0, 4: 1.9}, {}, 8, 8),  # a large model: every thread counts, and many tokens are not tried
        ({8: 1.0, 4: 1.05, 2: 1.1, 1: 1.2}, {8: 5.0, 4: 9.0}, 2, 8),
        ({8: 1.0, 4: 0.9, 2: 0.8, 1: 0.7}, {8: 5.0, 4: 5.1, 2: 8.0}, 1, 4),
        ({8: 1.0, 4: 1.1, 2: 1.05, 1: 1.0}, {8: 5.0, 4: 5.1, 2: 5.2, 1: 5.3}, 1, 1),  # a tiny one
    ],
)
def test_decodes_take_no_more_threads_than_they_have_use_for(of_one, of_many, single, decode):
    seconds = {1: of_one, 16: of_many}
    policy = ThreadPolicy(single=8, decode=8, prompt=8).tried(
        lambda threads, tokens: seconds[tokens][threads], sequences=16
    )
    assert policy == ThreadPolicy(single=single, decode=decode, prompt=8)


@pytest.mark.parametrize(("spare_cores", "decode"), [(0, 2), (1, 1), (5, 1)])
def test_small_models_leave_cores_to_http_in_decodes_though_they_would_be_faster(spare_cores, decode):
    # Given a model with which one token takes one thread, and many tokens two
    seconds = {1: {2: 1.0, 1: 1.0}, 16: {2: 1.4, 1: 2.3}}
    policy = ThreadPolicy(single=2, decode=2, prompt=2).tried(
        lambda threads, tokens: seconds[tokens][threads], sequences=16, spare_cores=spare_cores
    )
    assert policy == ThreadPolicy(single=1, decode=decode, prompt=2)


def test_threads_are_compared_by_the_quickest_of_steps_that_took_turns():
    # Given a machine that is slow at first, and all the more with two threads
    asked = []

    def seconds(threads: int, _tokens: int) -> float:
        asked.append(threads)
        return {2: 0.001, 1: 0.002}[threads] * (3 if len(asked) < 10 else 1)

    assert ThreadPolicy(single=2, decode=2, prompt=2).tried(seconds, sequences=4).single == 2
    assert asked == MOST_TRIES * [2, 1]


def test_of_a_slow_model_few_steps_are_tried():
    asked = []

    def seconds(threads: int, _tokens: int) -> float:
        asked.append(threads)
        return 2.0 / threads

    ThreadPolicy(single=2, decode=2, prompt=2).tried(seconds, sequences=4)
    assert asked == LEAST_TRIES * [2, 1]


def test_a_step_in_which_somebody_decodes_has_a_budget_of_its_own():
    # Given four sequences that come one after the other, of ten tokens each
    scheduler = scheduler_for(slots=4, step_tokens=16, mixed_step_tokens=5)
    lengths = []
    for index in range(4):
        scheduler.submit(
            sequence(str(index), list(range(10 * index, 10 * index + 10)), 30, order=(0.0, index))
        )
        plan = scheduler.schedule(0.0)
        lengths.append(sorted(len(row.tokens) for row in plan.rows))
        scheduler.commit(plan, [Drawn(1) for row in plan.rows if row.draw], 0.0)
    # Then alone a prompt takes what it can use of a whole step, and beside a decode four tokens are left
    assert lengths == [[10], [1, 4], [1, 4], [1, 2, 2]]


def test_threads_spin_a_little_unless_the_environment_asks_for_something_else():
    ours = waiting({})
    assert set(ours) == {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    assert waiting({"OMP_WAIT_POLICY": "passive"}) == {"GOMP_SPINCOUNT": ours["GOMP_SPINCOUNT"]}
    assert waiting({"OMP_WAIT_POLICY": "ACTIVE"}) == {}
    assert waiting({"GOMP_SPINCOUNT": "7"}) == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_threads_spin_fewer_times_where_a_pause_is_long():
    counts = [
        int(waiting({}, processor=name)["GOMP_SPINCOUNT"])
        for name in ("Intel(R) Xeon(R) Processor @ 2.80GHz", "AMD EPYC 9B14", "Neoverse-N1")
    ]
    assert counts == [200, 5000, 5000]


def test_the_scheduler_that_ran_is_empty_afterwards():
    scheduler = scheduler_for()
    for index in range(40):
        scheduler.submit(sequence(str(index), [index] * 30, 9, order=(0.0, index), key=str(index % 3)))
    run_to_end(scheduler, ModeledRunner(scheduler.limits))
    assert not scheduler.waiting
    assert not scheduler.running
    assert scheduler.pool.num_used == 0
