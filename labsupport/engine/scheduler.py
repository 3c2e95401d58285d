"""Who runs next: decode first, prompts in chunks, nobody for ever in the queue.

The scheduler is pure. It is handed the time, makes a plan, and is told what came of it; it knows no
tensors, no text and no sockets, so the server, the offline engine and a simulation run the very same one.
Right means: no sequence is lost, none waits for ever, no cell is promised twice, and everything is free at
the end.

Whose turn it is to be let in says `waiting`; cells and prefixes are kept by `slot_memory`. Who runs is never
sent away for somebody else's turn, only for memory, and then in the order that `seniority` tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass

from labsupport.engine.admission import AdmissionPolicy, Offer
from labsupport.engine.config import Admission, EngineConfig, Fairness, PrefixScope
from labsupport.engine.kv_pool import KVPool
from labsupport.engine.messages import FinishReason
from labsupport.engine.plan import Drawn, Plan, Row, Runner, RunnerLimits
from labsupport.engine.seniority import Seniority
from labsupport.engine.sequence import Sequence
from labsupport.engine.slot_memory import SlotMemory
from labsupport.engine.step import next_row, share_step, unchanged_for
from labsupport.engine.waiting import WaitingQueue


@dataclass(frozen=True, slots=True)
class Progress:
    """A token drawn for a sequence; `sequence.finish_reason` is set if it was the last."""

    sequence: Sequence
    drawn: Drawn


@dataclass(slots=True)
class Counters:
    """Totals since the start, in tokens. `recomputed_tokens` had been computed before, and were lost with
    their sequence's memory; the others count each token once."""

    prompt_tokens: int = 0
    recomputed_tokens: int = 0
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
        mixed_step_tokens: int = 0,
        admission: Admission = "reserve",
        fairness: Fairness = "keys",
        prefix_scope: PrefixScope = "all",
        weights: Mapping[str, int] | None = None,
        end_tokens: frozenset[int] = frozenset(),
    ) -> None:
        self.limits = limits
        self.slots = slots
        self.step_tokens = min(step_tokens or limits.step_tokens, limits.step_tokens)
        self.mixed_step_tokens = min(mixed_step_tokens or self.step_tokens, self.step_tokens)
        self.end_tokens = end_tokens
        self.memory = SlotMemory(limits, prefix_slots=prefix_slots, prefix_scope=prefix_scope)
        if self.mixed_step_tokens < slots or slots + self.memory.prefix_slots > limits.max_slots:
            raise ValueError(
                f"{slots} + {self.memory.prefix_slots} slots, {self.step_tokens} tokens a step, "
                f"{self.mixed_step_tokens} beside decodes: {limits}"
            )
        if limits.cells < limits.context_tokens:
            raise ValueError(f"the longest sequence does not fit into the cells: {limits}")
        self.counters = Counters()
        self._admission = AdmissionPolicy(admission, self.memory, worthwhile_tokens=self.step_tokens // 4)
        self.waiting = WaitingQueue(fair=fairness == "keys", weights=weights)
        self.running: list[Sequence] = []
        self._sequences: dict[str, Sequence] = {}
        self._seniority = Seniority(self.waiting.tenant)
        self._is_crowded = False  # the device had less room than it said; until one ends, nobody comes in

    @classmethod
    def for_config(cls, config: EngineConfig, runner: Runner) -> Scheduler:
        """A scheduler with a configuration's levers over a runner."""
        return cls(
            runner.limits,
            slots=config.slots,
            prefix_slots=config.prefix_slots,
            step_tokens=config.step_tokens,
            mixed_step_tokens=config.mixed_step_tokens,
            admission=config.admission,
            fairness=config.fairness,
            prefix_scope=config.prefix_scope,
            weights=config.key_weights,
            end_tokens=runner.end_tokens,
        )

    @property
    def pool(self) -> KVPool:
        """The books of the cells."""
        return self.memory.pool

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
        self._seniority.arrived(sequence)
        self.waiting.add(sequence)

    def finish(self, request_id: str, reason: FinishReason) -> Sequence | None:
        """End a sequence wherever it is and free what it holds; None if there is no such sequence."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is None:
            return None
        sequence.finish_reason = reason
        self._seniority.ended(sequence)
        self._is_crowded = False
        if sequence.slot is None:
            self.waiting.remove(sequence)
        else:
            self.running.remove(sequence)
            self.memory.give_up(sequence, keep=True)
            self.waiting.reconsider()
        return sequence

    # One step

    def schedule(self, now: float) -> Plan:
        """The next step. Falsy if there is nothing to do."""
        rows: list[Row] = []
        sequences: list[Sequence] = []
        preemptions = self.counters.preemptions
        offer = self._offer(now)
        counts, room = share_step(
            self.step_tokens,
            self.running,
            offer,
            mixed_step_tokens=self.mixed_step_tokens,
            tenant=self.waiting.tenant,
        )
        for sequence in list(self.running):  # in order: the first is the last to lose its memory
            if sequence.slot is None:
                continue  # it lost its memory to one before it just now
            count = counts[sequence.request_id]
            if count and self._grow(sequence, count):
                rows.append(next_row(sequence, count))
                sequences.append(sequence)
        if self.counters.preemptions == preemptions:
            # Again: the prefix that was offered may have been dropped for room.
            while room and offer and (offer := self._offer(now)):
                sequence = offer.sequence
                self._admit(offer, now)
                count = min(room, sequence.num_uncomputed)
                self.memory.make_room(count)
                self.memory.append(sequence, count)
                room -= count
                rows.append(next_row(sequence, count))
                sequences.append(sequence)
        if self.running:
            self.memory.trim()
        operations = self.memory.take_operations()
        return Plan(
            operations=operations,
            rows=tuple(rows),
            sequences=tuple(sequences),
            unchanged_for=1
            if operations or self.counters.preemptions > preemptions  # then somebody may fit who did not
            else unchanged_for(rows, sequences, num_running=len(self.running), num_free=self.pool.num_free),
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
            sequence.num_ever_computed = max(sequence.num_ever_computed, sequence.num_computed)
            self.counters.recomputed_tokens += row.num_again
            self.counters.prompt_tokens += max(
                0, min(row.start + len(row.tokens), sequence.num_prompt) - row.start - row.num_again
            )
            if result is None:
                continue
            sequence.tokens.append(result.token)
            self.counters.generated_tokens += 1
            self.waiting.charge(sequence, generated_tokens=1)
            if result.token in self.end_tokens and not sequence.params.ignore_eos:
                self.finish(sequence.request_id, "stop")
            elif not sequence.num_remaining:
                self.finish(sequence.request_id, "length")
            progress.append(Progress(sequence, result))
        return progress

    def retreat(self, plan: Plan) -> list[Sequence]:
        """Take a plan back whose rows found no room on the device, and make room.

        Kept prefixes go first, then the sequence of the last place goes back to the queue. One that runs
        alone and still finds no room never will: it is ended with an error, and returned.
        """
        for sequence in plan.sequences:
            if sequence.slot is not None:
                self.pool.drop_tail(sequence.slot, sequence.num_computed)
        if self.memory.cache:
            while self.memory.evict():
                pass
        elif len(self.running) > 1:
            self._preempt(self.running[-1])
            self._is_crowded = True
        elif self.running:
            return [ended for ended in [self.finish(self.running[0].request_id, "error")] if ended]
        return []

    # Coming in and giving way

    def _offer(self, now: float) -> Offer | None:
        """The sequence whose turn it is, if it can be let in now."""
        if not self.waiting or len(self.running) >= self.slots or (self._is_crowded and self.running):
            return None
        return self._admission.offer(self.waiting.first(now), self.running)

    def _admit(self, offer: Offer, now: float) -> None:
        """Take up an offer, which was made in this step and with nothing done since."""
        sequence = offer.sequence
        self.waiting.remove(sequence)
        # There is a free slot: at most `prefix_slots` are kept, and one for each that runs is due.
        self.memory.open(sequence, offer.prefix)
        if sequence.admitted is None:
            sequence.admitted = now
            self._seniority.admitted(sequence)
            self.waiting.charge(sequence, prompt_tokens=sequence.num_uncomputed)
        self.running.append(sequence)
        self.running.sort(key=lambda running: running.place)
        if not sequence.num_generated:
            sequence.num_cached = sequence.num_computed
            self.counters.prefix_query_tokens += sequence.num_prompt
            self.counters.prefix_hit_tokens += sequence.num_cached

    def _grow(self, sequence: Sequence, count: int) -> bool:
        """Give a running sequence `count` cells, at the expense of who comes last if need be.

        False if that was the sequence itself, and it had to go.
        """
        while self.pool.num_available < count:
            last = self.running[-1]
            self._preempt(last)
            if last is sequence:
                return False
        self.memory.make_room(count)
        self.memory.append(sequence, count)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's memory; it goes back to its place in the queue and is computed again."""
        self.counters.preemptions += 1
        self.running.remove(sequence)
        self.memory.give_up(sequence, keep=False)
        self.waiting.add(sequence)

    def check_integrity(self) -> list[str]:
        """Every invariant that does not hold now, between two steps; empty when all is well."""
        problems = [
            *self.memory.check_integrity(),
            *self.waiting.check_integrity(),
            *self._seniority.check_integrity(),
        ]
        for sequence in self.running:
            if sequence.slot is None or self.pool.length(sequence.slot) != sequence.num_computed:
                problems.append(f"{sequence.request_id} holds other cells than it has computed tokens")
        known = sorted(sequence.request_id for sequence in (*self.running, *self.waiting))
        if known != sorted(self._sequences):
            problems.append("a sequence is lost, or in two places")
        if [sequence.place for sequence in self.running] != sorted(each.place for each in self.running):
            problems.append("the running sequences are out of order")
        if len(self.running) > self.slots:
            problems.append("more sequences run than there are slots")
        if not self.running and self.pool.num_available != self.pool.num_cells:
            problems.append(
                f"{self.pool.num_cells - self.pool.num_available} cells are held by nobody running"
            )
        return problems
