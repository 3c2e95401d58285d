"""Looks at the scheduler after a step and says what is to be seen, while somebody watches.

Right means: without a watcher a step costs one comparison; with one, a snapshot is made at most so many times
a second, and nothing that it does can change what the scheduler decides.
"""

from __future__ import annotations

import itertools
import math

from labsupport.engine.plan import Plan
from labsupport.engine.scheduler import Scheduler
from labsupport.engine.segments import stretches
from labsupport.engine.sequence import Sequence
from labsupport.engine.snapshot import (
    RunningView,
    SegmentView,
    Snapshot,
    StepView,
    WaitingView,
    Watch,
    short_name,
)

MOST_WAITING_SHOWN = 48
MOST_STEPS_SHOWN = 120


class Observer:
    """Watches one scheduler; `now` is of one clock, in seconds."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._until = -math.inf
        self._interval_seconds = 0.0
        self._forget()

    def _forget(self) -> None:
        self._was_watching = False
        self._was_busy = False
        self._due = -math.inf
        self._places: dict[str, int] = {}
        self._steps: list[StepView] = []
        self._prompt_tokens = self._recomputed_tokens = self._generated_tokens = 0

    def watch(self, wish: Watch, now: float) -> None:
        """Begin, go on or stop."""
        self._until = now + wish.seconds if wish.seconds > 0 else -math.inf
        self._interval_seconds = 1 / wish.per_second if wish.per_second > 0 else math.inf

    def after_step(self, plan: Plan, now: float) -> Snapshot | None:
        """The snapshot that is due after a step was committed, or None.

        One that ends the work is always due: what stays on the screen is then an engine at rest.
        """
        if now >= self._until:
            if self._was_watching:
                self._forget()
            return None
        self._was_watching = True
        if plan:
            self._count(plan)
        comes_to_rest = self._was_busy and not plan
        self._was_busy = bool(plan)
        if now < self._due and not comes_to_rest:
            return None
        self._due = now + self._interval_seconds
        return self._snapshot(plan, now)

    def _count(self, plan: Plan) -> None:
        # A draw after the first comes from one token that is new, whatever is computed again before it.
        decodes = sum(row.draw is not None and row.draw.index > 0 for row in plan.rows)
        again = sum(row.num_again for row in plan.rows)
        prompt_tokens = sum(len(row.tokens) for row in plan.rows) - again - decodes
        self._prompt_tokens += prompt_tokens
        self._recomputed_tokens += again
        self._generated_tokens += sum(row.draw is not None for row in plan.rows)
        self._steps.append(StepView(decodes, prompt_tokens, again))
        del self._steps[:-MOST_STEPS_SHOWN]

    def _snapshot(self, plan: Plan, now: float) -> Snapshot:
        scheduler, pool = self._scheduler, self._scheduler.pool
        in_step = {
            sequence.request_id: len(row.tokens)
            for row, sequence in zip(plan.rows, plan.sequences, strict=True)
        }
        self._seat(scheduler.running)
        snapshot = Snapshot(
            slots=scheduler.slots,
            step_tokens=scheduler.step_tokens,
            running=tuple(
                self._running(sequence, in_step.get(sequence.request_id, 0)) for sequence in scheduler.running
            ),
            waiting=tuple(
                WaitingView(
                    name=short_name(sequence.request_id),
                    prompt_tokens=sequence.num_prompt,
                    generated_tokens=sequence.num_generated,
                    waited_seconds=round(now - sequence.arrived, 2),
                )
                for sequence in itertools.islice(scheduler.waiting, MOST_WAITING_SHOWN)
            ),
            num_waiting=len(scheduler.waiting),
            segments=self._segments(),
            used_cells=pool.num_used,
            cached_cells=pool.num_cached,
            total_cells=pool.num_cells,
            steps=tuple(self._steps),
            prompt_tokens=self._prompt_tokens,
            recomputed_tokens=self._recomputed_tokens,
            generated_tokens=self._generated_tokens,
        )
        self._steps = []
        self._prompt_tokens = self._recomputed_tokens = self._generated_tokens = 0
        return snapshot

    def _seat(self, running: list[Sequence]) -> None:
        """Give newcomers the lowest places that are free; whoever runs on stays where it is."""
        here = {sequence.request_id for sequence in running}
        self._places = {name: place for name, place in self._places.items() if name in here}
        free = iter(sorted(set(range(self._scheduler.slots)) - set(self._places.values())))
        for sequence in running:
            if sequence.request_id not in self._places:
                self._places[sequence.request_id] = next(free)

    def _running(self, sequence: Sequence, step_tokens: int) -> RunningView:
        return RunningView(
            name=short_name(sequence.request_id),
            slot=self._places[sequence.request_id],
            phase="decode" if sequence.is_decoding and sequence.num_generated else "prompt",
            prompt_tokens=sequence.num_prompt,
            cached_tokens=sequence.num_cached,
            computed_tokens=sequence.num_computed,
            generated_tokens=sequence.num_generated,
            max_tokens=sequence.params.max_tokens,
            step_tokens=step_tokens,
        )

    def _segments(self) -> tuple[SegmentView, ...]:
        """Whose the cells are; what runs comes before what is only kept."""
        scheduler, holdings = self._scheduler, self._scheduler.pool.holdings()
        runs_in = {sequence.slot: short_name(sequence.request_id) for sequence in scheduler.running}
        order = sorted(holdings, key=lambda slot: slot not in runs_in)
        return tuple(
            SegmentView(
                start=stretch.start,
                cells=stretch.length,
                holders=tuple(runs_in.get(slot, f"kept {slot}") for slot in stretch.slots),
                is_kept=all(slot in scheduler.memory.cache for slot in stretch.slots),
            )
            for stretch in stretches({slot: holdings[slot] for slot in order})
        )
