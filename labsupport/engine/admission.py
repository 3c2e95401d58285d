"""Whether the next sequence can be let in: is there room for all that it may come to need?

Right means: with `reserve`, whoever runs gets every cell that it can ever ask for, so memory is never taken
back; with `preempt`, it gets what it needs now. Either way nobody is let in on cells that are promised to
somebody else.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass

from labsupport.engine.config import Admission
from labsupport.engine.sequence import Sequence
from labsupport.engine.slot_memory import SlotMemory


@dataclass(frozen=True, slots=True)
class Offer:
    """A sequence that can be let in now, and the slot and length of the prefix that it will begin with."""

    sequence: Sequence
    prefix: tuple[int, int] | None

    @property
    def num_uncomputed(self) -> int:
        """Tokens that it has to compute all the same."""
        return len(self.sequence.tokens) - (self.prefix[1] if self.prefix else 0)


class AdmissionPolicy:
    """`policy` is `EngineConfig.admission`. A prompt waits for a prefix that is being computed already if
    that saves it more than `worthwhile_tokens`."""

    def __init__(self, policy: Admission, memory: SlotMemory, *, worthwhile_tokens: int) -> None:
        self._policy = policy
        self._memory = memory
        self._worthwhile_tokens = worthwhile_tokens

    def offer(self, sequence: Sequence, running: Items[Sequence]) -> Offer | None:
        """What `sequence` would begin with beside those that run, or None if it has to wait."""
        memory = self._memory
        prefix, coming = memory.longest_prefix(sequence, running)
        source, length = prefix or (-1, 0)
        if coming - length > self._worthwhile_tokens:
            return None  # and not for ever: a prompt in a slot goes on with every step
        # A retired source's cells count as available; shared, they are not: only an open one's come for free.
        is_free = memory.sharing == "alias" and source not in memory.cache
        promised = sum(self.claim(other) - memory.length(other) for other in running)
        if self.claim(sequence) - (length if is_free else 0) > memory.pool.num_available - promised:
            return None
        return Offer(sequence, prefix)

    def claim(self, sequence: Sequence) -> int:
        """Cells that are promised to a sequence that runs."""
        return sequence.worst_case_cells if self._policy == "reserve" else len(sequence.tokens)
