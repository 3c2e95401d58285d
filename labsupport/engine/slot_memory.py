"""Slots, cells and kept prefixes together, and the cache operations that keep the device in step.

Right means: whatever is done to the books here is also said to the device, by an operation of the next plan
and in the same order; and a prefix is never named longer than what its slot really holds. It knows no
policy: whom to let in and whose memory to take is the scheduler's business.
"""

from __future__ import annotations

from collections.abc import Iterable

from labsupport.engine.config import PrefixScope
from labsupport.engine.kv_pool import KVPool
from labsupport.engine.plan import CacheOperation, Copy, Free, RunnerLimits, Share
from labsupport.engine.prefix_cache import PrefixCache, common_prefix
from labsupport.engine.sequence import Sequence


def slot_of(sequence: Sequence) -> int:
    """The slot of a sequence that runs."""
    if sequence.slot is None:
        raise RuntimeError(f"{sequence.request_id} runs without a slot")
    return sequence.slot


class SlotMemory:
    """A runner's cells. `prefix_slots` finished sequences at most are kept for their prefix.

    prefix_scope: whose prefixes a sequence finds, everybody's or those of its own key.
    """

    def __init__(self, limits: RunnerLimits, *, prefix_slots: int, prefix_scope: PrefixScope = "all") -> None:
        self.sharing = limits.prefix_sharing
        self.prefix_slots = 0 if self.sharing == "none" else prefix_slots
        self.pool = KVPool(num_cells=limits.cells, num_slots=limits.max_slots)
        self.cache = PrefixCache(self.prefix_slots)
        self._is_shared_by_all = prefix_scope == "all"
        self._keys: dict[int, str] = {}  # of the sequence that has, or had, a slot
        self._operations: list[CacheOperation] = []

    def take_operations(self) -> tuple[CacheOperation, ...]:
        """What the device has to do to be as the books say, in order; each is given once."""
        operations, self._operations = tuple(self._operations), []
        return operations

    def length(self, sequence: Sequence) -> int:
        """Cells that a running sequence holds."""
        return self.pool.length(slot_of(sequence))

    def append(self, sequence: Sequence, count: int) -> None:
        """Give a running sequence `count` cells. Raises MemoryError when they are not free."""
        self.pool.append(slot_of(sequence), count)

    def open(self, sequence: Sequence, prefix: tuple[int, int] | None) -> None:
        """Give a sequence a slot, with `prefix` in it: the slot to take it from, and its length.

        Where it has to be copied and the room for that lacks, the sequence begins with nothing. There must be
        a free slot. Raises IndexError.
        """
        sequence.slot = self.pool.open()
        self._keys[sequence.slot] = sequence.key
        self.cache.learn(sequence.tokens, prefix[1] if prefix else 0)
        if prefix:
            self._take_prefix(sequence.slot, *prefix)
        sequence.num_computed = self.pool.length(sequence.slot)

    def _take_prefix(self, target: int, source: int, length: int) -> None:
        if source in self.cache:
            self.cache.touch(source)
        if self.sharing == "alias":
            self.pool.share(source, target, length)
            self._operations.append(Share(source, target, length))
        elif self.make_room(length, sparing=source):
            self.pool.append(target, length)
            self._operations.append(Copy(source, target, length))

    def give_up(self, sequence: Sequence, *, keep: bool) -> None:
        """Take a running sequence's slot: keep what it computed for its prefix, or free its cells."""
        slot = slot_of(sequence)
        if keep and self.prefix_slots and 0 < sequence.num_computed == self.pool.length(slot):
            self.pool.retire(slot)
            computed = sequence.tokens[: sequence.num_computed]
            self.cache.keep(slot, computed, num_prompt=sequence.num_prompt)
            while len(self.cache) > self.prefix_slots:
                self.evict()
        else:
            self.pool.close(slot)
            self._operations.append(Free(slot))
        sequence.slot = None
        sequence.num_computed = 0

    def trim(self) -> None:
        """Drop kept prefixes that nobody is likely to ask for; to be called while somebody runs and pays for
        them."""
        while len(self.cache) > self.cache.room:  # which can shrink with each that goes
            self.evict()

    def make_room(self, count: int, *, sparing: int | None = None) -> bool:
        """Drop kept prefixes until `count` cells are free; whether they are."""
        while self.pool.num_free < count and self.evict(sparing=sparing):
            pass
        return self.pool.num_free >= count

    def evict(self, *, sparing: int | None = None) -> bool:
        """Drop the kept prefix that went unused longest, but for `sparing`; whether there was one."""
        slot = self.cache.drop_oldest(sparing=sparing)
        if slot is None:
            return False
        self.pool.close(slot)
        self._operations.append(Free(slot))
        return True

    def longest_prefix(
        self, sequence: Sequence, running: Iterable[Sequence]
    ) -> tuple[tuple[int, int] | None, int]:
        """The longest prefix of a sequence that some slot holds, as (slot, length), None if there is none;
        and how long a prefix of it is being computed, or will be, by a running sequence.

        The last token is never among them: it has to run, for its logits.
        """
        if not self.prefix_slots:
            return None, 0
        tokens, source, longest, coming = sequence.tokens, -1, 0, 0
        most = len(tokens) - 1
        for slot, kept in self.cache.items():
            if not self._may_share(slot, sequence):
                continue
            length = min(common_prefix(kept, tokens), most)
            if length > longest:
                source, longest = slot, length
        for other in running:
            if not self._may_share(slot_of(other), sequence):
                continue
            # Only its prompt: what it generates meanwhile must not change who can be admitted.
            common = min(common_prefix(other.tokens, tokens), other.num_prompt, most)
            coming = max(coming, common)
            if min(common, other.num_computed) > longest:
                source, longest = slot_of(other), min(common, other.num_computed)
        return (source, longest) if longest else None, coming

    def _may_share(self, slot: int, sequence: Sequence) -> bool:
        return self._is_shared_by_all or self._keys[slot] == sequence.key

    def check_integrity(self) -> list[str]:
        """Every invariant that does not hold now, between two steps; empty when all is well."""
        problems = self.pool.check_integrity()
        if len(self.cache) > self.prefix_slots:
            problems.append("more prefixes are kept than there are slots for them")
        if any(self.pool.length(slot) != len(tokens) for slot, tokens in self.cache.items()):
            problems.append("a kept prefix is not as long as its slot")
        return problems
