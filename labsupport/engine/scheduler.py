"""Who runs next, and where in memory: decode first, prompts in chunks, nobody for ever in the queue.

The scheduler is pure. It is handed the time, makes a plan, and is told what came of it; it knows no
tensors, no text and no sockets, so the server, the offline engine and a simulation run the very same one.
Right means: no sequence is lost, none waits for ever, no cell is promised twice, and everything is free at
the end.

The queue's order is fixed on arrival (arrival + priority × patience), so a request can be overtaken only by
those that arrive within a bounded time after it. Nobody overtakes the head of the queue because it is
smaller.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence as Items
from dataclasses import dataclass

from labsupport.engine.config import Admission, EngineConfig
from labsupport.engine.kv_pool import KVPool
from labsupport.engine.messages import FinishReason
from labsupport.engine.plan import (
    CacheOperation,
    Copy,
    Draw,
    Drawn,
    Free,
    Plan,
    Row,
    Runner,
    RunnerLimits,
    Share,
)
from labsupport.engine.prefix_cache import PrefixCache, common_prefix
from labsupport.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Progress:
    """A token drawn for a sequence; `sequence.finish_reason` is set if it was the last."""

    sequence: Sequence
    drawn: Drawn


@dataclass(slots=True)
class Counters:
    """Totals since the start, in tokens."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefix_query_tokens: int = 0
    prefix_hit_tokens: int = 0
    preemptions: int = 0


class Scheduler:
    """`slots` sequences at once over a runner's cells. The levers are those of `EngineConfig`."""

    def __init__(
        self,
        limits: RunnerLimits,
        *,
        slots: int,
        prefix_slots: int = 0,
        step_tokens: int | None = None,
        admission: Admission = "reserve",
        end_tokens: frozenset[int] = frozenset(),
    ) -> None:
        self.limits = limits
        self.slots = slots
        self.prefix_slots = 0 if limits.prefix_sharing == "none" else prefix_slots
        self.step_tokens = min(step_tokens or limits.step_tokens, limits.step_tokens)
        self.admission = admission
        self.end_tokens = end_tokens
        if self.step_tokens < slots or slots + self.prefix_slots > limits.max_slots:
            raise ValueError(
                f"{slots} + {self.prefix_slots} slots, {self.step_tokens} tokens a step: {limits}"
            )
        if limits.cells < limits.context_tokens:
            raise ValueError(f"the longest sequence does not fit into the cells: {limits}")
        self.pool = KVPool(num_cells=limits.cells, num_slots=limits.max_slots)
        self.cache = PrefixCache()
        self.counters = Counters()
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._sequences: dict[str, Sequence] = {}
        self._operations: list[CacheOperation] = []
        self._is_crowded = False  # the device had less room than it said; until one ends, nobody comes in

    @classmethod
    def for_config(cls, config: EngineConfig, runner: Runner) -> Scheduler:
        """A scheduler with a configuration's levers over a runner."""
        return cls(
            runner.limits,
            slots=config.slots,
            prefix_slots=config.prefix_slots,
            step_tokens=config.step_tokens,
            admission=config.admission,
            end_tokens=runner.end_tokens,
        )

    # What comes in

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence. Raises ValueError if it could never run or its name is taken."""
        if sequence.request_id in self._sequences:
            raise ValueError(f"there is already a request {sequence.request_id!r}")
        if sequence.params.max_tokens < 1 or sequence.num_prompt < 1:
            raise ValueError("a sequence has at least one prompt token and one token to generate")
        if sequence.num_prompt + sequence.params.max_tokens > self.limits.context_tokens:
            raise ValueError(
                f"{sequence.num_prompt} + {sequence.params.max_tokens} tokens are over the context of "
                f"{self.limits.context_tokens}"
            )
        self._sequences[sequence.request_id] = sequence
        bisect.insort(self.waiting, sequence, key=lambda waiting: waiting.order)

    def finish(self, request_id: str, reason: FinishReason) -> Sequence | None:
        """End a sequence wherever it is and free what it holds; None if there is no such sequence."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is None:
            return None
        sequence.finish_reason = reason
        self._is_crowded = False
        if sequence.slot is None:
            self.waiting.remove(sequence)
        else:
            self.running.remove(sequence)
            self._give_up_slot(sequence, keep=self.prefix_slots > 0)
        return sequence

    # One step

    def schedule(self, now: float) -> Plan:
        """The next step. Falsy if there is nothing to do."""
        rows: list[Row] = []
        sequences: list[Sequence] = []
        preemptions = self.counters.preemptions
        # Decodes come first: each gets its token, and prompts share what is left of the budget.
        budget = self.step_tokens - sum(sequence.is_decoding for sequence in self.running)
        for sequence in list(self.running):  # in order: who came first is the last to lose its memory
            if sequence.slot is None:
                continue  # it lost its memory to an older one just now
            count = 1 if sequence.is_decoding else min(budget, sequence.num_uncomputed)
            if count and self._grow(sequence, count):
                budget -= 0 if sequence.is_decoding else count
                rows.append(self._row(sequence, count))
                sequences.append(sequence)
        if self.counters.preemptions == preemptions and not (self._is_crowded and self.running):
            while budget and self.waiting and self._admit(self.waiting[0]):
                sequence = self.waiting.pop(0)
                if sequence.admitted is None:
                    sequence.admitted = now
                bisect.insort(self.running, sequence, key=lambda running: running.order)
                count = min(budget, sequence.num_uncomputed)
                self.pool.append(self._slot(sequence), count)
                budget -= count
                rows.append(self._row(sequence, count))
                sequences.append(sequence)
        operations, self._operations = tuple(self._operations), []
        return Plan(
            operations=operations,
            rows=tuple(rows),
            sequences=tuple(sequences),
            unchanged_for=self._unchanged_for(rows, sequences, self.counters.preemptions > preemptions),
        )

    def commit(self, plan: Plan, drawn: Items[Drawn], now: float) -> list[Progress]:
        """Take in what a step gave: one `Drawn` per row with a `draw`. Says who got which token."""
        results = iter(drawn)
        progress = []
        for row, sequence in zip(plan.rows, plan.sequences, strict=True):
            result = next(results) if row.draw else None
            if sequence.slot is None:
                continue  # aborted while the step ran
            sequence.num_computed += len(row.tokens)
            self.counters.prompt_tokens += max(
                0, min(row.start + len(row.tokens), sequence.num_prompt) - row.start
            )
            if result is None:
                continue
            sequence.tokens.append(result.token)
            self.counters.generated_tokens += 1
            if result.token in self.end_tokens and not sequence.params.ignore_eos:
                self.finish(sequence.request_id, "stop")
            elif not sequence.num_remaining:
                self.finish(sequence.request_id, "length")
            progress.append(Progress(sequence, result))
        return progress

    def retreat(self, plan: Plan) -> list[Sequence]:
        """Take a plan back whose rows found no room on the device, and make room.

        Kept prefixes go first, then the youngest sequence goes back to the queue. One that runs alone and
        still finds no room never will: it is ended with an error, and returned.
        """
        for sequence in plan.sequences:
            if sequence.slot is not None:
                self.pool.drop_tail(sequence.slot, sequence.num_computed)
        if self.cache:
            while self._evict():
                pass
        elif len(self.running) > 1:
            self._preempt(self.running[-1])
            self._is_crowded = True
        elif self.running:
            return [ended for ended in [self.finish(self.running[0].request_id, "error")] if ended]
        return []

    # Memory

    def _admit(self, sequence: Sequence) -> bool:
        """Give the head of the queue a slot if there is one and its claim fits; share what prefix can be."""
        if len(self.running) >= self.slots:
            return False
        source, length = self._longest_prefix(sequence)
        if source is None and length:
            return False  # an earlier sequence is computing this prefix: it will be there to share
        aliased = length if self.limits.prefix_sharing == "alias" else 0
        # A retired source's cells count as available; shared, they are not: only an open one's come for free.
        saved = 0 if source is None or source in self.cache else aliased
        promised = sum(
            self._claim(running) - self.pool.length(self._slot(running)) for running in self.running
        )
        if self._claim(sequence) - saved > self.pool.num_available - promised:
            return False
        sequence.slot = (
            self.pool.open()
        )  # there is one: at most `prefix_slots` are kept, and a running one is due
        if source is not None:
            self._take_prefix(sequence, source, length)
        if not sequence.num_generated:
            sequence.num_cached = sequence.num_computed
            self.counters.prefix_query_tokens += sequence.num_prompt
            self.counters.prefix_hit_tokens += sequence.num_cached
        self._make_room(min(self.step_tokens, sequence.num_uncomputed))
        return True

    def _take_prefix(self, sequence: Sequence, source: int, length: int) -> None:
        target = self._slot(sequence)
        if source in self.cache:
            self.cache.touch(source)
        if self.limits.prefix_sharing == "alias":
            self.pool.share(source, target, length)
            self._operations.append(Share(source, target, length))
        elif self._make_room(length, sparing=source):
            self.pool.append(target, length)
            self._operations.append(Copy(source, target, length))
        sequence.num_computed = self.pool.length(target)

    def _claim(self, sequence: Sequence) -> int:
        """Cells that the admission policy promises a running sequence."""
        return sequence.worst_case_cells if self.admission == "reserve" else len(sequence.tokens)

    def _longest_prefix(self, sequence: Sequence) -> tuple[int | None, int]:
        """The slot with the longest common prefix, and its length; a length alone: it is being computed."""
        if not self.prefix_slots:
            return None, 0
        source, longest = None, 0
        most = len(sequence.tokens) - 1  # the last token has to run, for its logits
        for slot, tokens in self.cache.items():
            length = min(common_prefix(tokens, sequence.tokens), most)
            if length > longest:
                source, longest = slot, length
        coming = 0
        for running in self.running:
            # Only its prompt: what it generates meanwhile must not change who can be admitted.
            common = min(common_prefix(running.tokens, sequence.tokens), running.num_prompt, most)
            coming = max(coming, common)
            if min(common, running.num_computed) > longest:
                source, longest = running.slot, min(common, running.num_computed)
        # Waiting pays when it saves a good part of a step, and it ends: the prompt awaited gets budget first.
        return (None, coming) if coming - longest > self.step_tokens // 4 else (source, longest)

    def _grow(self, sequence: Sequence, count: int) -> bool:
        """Give a running sequence `count` cells, at the youngest's expense if need be.

        False if it was the youngest itself, and had to go.
        """
        while self.pool.num_available < count:
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is sequence:
                return False
        self._make_room(count)
        self.pool.append(self._slot(sequence), count)
        return True

    def _make_room(self, count: int, *, sparing: int | None = None) -> bool:
        """Drop kept prefixes until `count` cells are free; whether they are."""
        while self.pool.num_free < count and self._evict(sparing=sparing):
            pass
        return self.pool.num_free >= count

    def _evict(self, *, sparing: int | None = None) -> bool:
        slot = self.cache.drop_oldest(sparing=sparing)
        if slot is None:
            return False
        self.pool.close(slot)
        self._operations.append(Free(slot))
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's memory; it goes back to its place in the queue and is computed again."""
        self.counters.preemptions += 1
        self.running.remove(sequence)
        self._give_up_slot(sequence, keep=False)
        bisect.insort(self.waiting, sequence, key=lambda waiting: waiting.order)

    def _give_up_slot(self, sequence: Sequence, *, keep: bool) -> None:
        slot = self._slot(sequence)
        if keep and 0 < sequence.num_computed == self.pool.length(slot):
            self.pool.retire(slot)
            self.cache.keep(slot, sequence.tokens[: sequence.num_computed])
            if len(self.cache) > self.prefix_slots:
                self._evict()
        else:
            self.pool.close(slot)
            self._operations.append(Free(slot))
        sequence.slot = None
        sequence.num_computed = 0

    # Small things

    def _slot(self, sequence: Sequence) -> int:
        if sequence.slot is None:
            raise RuntimeError(f"{sequence.request_id} runs without a slot")
        return sequence.slot

    def _row(self, sequence: Sequence, count: int) -> Row:
        start = sequence.num_computed
        is_last = start + count == len(sequence.tokens)
        draw = (
            Draw(sequence.params, sequence.seed, sequence.num_generated, sequence.tokens) if is_last else None
        )
        return Row(self._slot(sequence), start, sequence.tokens[start : start + count], draw)

    def _unchanged_for(self, rows: list[Row], sequences: list[Sequence], preempted: bool) -> int:
        if (
            not rows
            or preempted
            or any(len(row.tokens) > 1 or not row.draw or not row.draw.index for row in rows)
        ):
            return 1
        if len(rows) < len(self.running):
            return 1
        return min(min(sequence.num_remaining for sequence in sequences), 1 + self.pool.num_free // len(rows))

    def check_integrity(self) -> list[str]:
        """Every invariant that does not hold now, between two steps; empty when all is well."""
        problems = self.pool.check_integrity()
        for sequence in self.running:
            if sequence.slot is None or self.pool.length(sequence.slot) != sequence.num_computed:
                problems.append(f"{sequence.request_id} holds other cells than it has computed tokens")
        if any(sequence.slot is not None for sequence in self.waiting):
            problems.append("a waiting sequence holds a slot")
        known = sorted(sequence.request_id for sequence in (*self.running, *self.waiting))
        if known != sorted(self._sequences):
            problems.append("a sequence is lost, or in two places")
        for name, queue in (("running", self.running), ("waiting", self.waiting)):
            if [sequence.order for sequence in queue] != sorted(sequence.order for sequence in queue):
                problems.append(f"the {name} sequences are out of order")
        if len(self.running) > self.slots or len(self.cache) > self.prefix_slots:
            problems.append("more slots are in use than there are")
        if any(self.pool.length(slot) != len(tokens) for slot, tokens in self.cache.items()):
            problems.append("a kept prefix is not as long as its slot")
        if not self.running and self.pool.num_available != self.pool.num_cells:
            problems.append(
                f"{self.pool.num_cells - self.pool.num_available} cells are held by nobody running"
            )
        return problems
