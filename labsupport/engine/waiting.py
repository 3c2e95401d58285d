"""The queue: who waits for a slot, and whose turn it is.

Within a tenant the order is fixed on arrival (arrival + priority × patience), so a request can be overtaken
only by those that arrive within a bounded time after it. Between tenants the turn goes to the one that was
served least. Right means: whoever has the turn keeps it until a request comes, ends or is let in. So nobody
overtakes it because it is smaller, and a step in which nothing of this happens changes nothing here, which is
what a plan's `unchanged_for` relies on.

Priority between tenants: a request of priority p > 0 gives way to every lower number, until p × patience has
passed; then it takes part like any other. A priority below 0 brings a request forward among its own tenant's
only, or asking for one would be a way to take more than a share.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterator, Mapping

from labsupport.engine.fairness import ServiceCounters
from labsupport.engine.sequence import Sequence


class WaitingQueue:
    """Sequences that wait. Not `fair`: all are one tenant's, first come first served.

    weights: see `ServiceCounters`.
    """

    def __init__(self, *, fair: bool, weights: Mapping[str, int] | None = None) -> None:
        self._fair = fair
        self._counters = ServiceCounters(weights)
        self._lines: dict[str, list[Sequence]] = {}  # of each tenant that waits, in order; none is empty
        self._turn: Sequence | None = None

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Sequence]:
        """All of them, in order of arrival and priority: not in that of their turns, which nobody knows."""
        return heapq.merge(*self._lines.values(), key=lambda waiting: waiting.order)

    def tenant(self, sequence: Sequence) -> str:
        """Whose share pays for a sequence."""
        return sequence.key if self._fair else ""

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence that has arrived, or has lost its memory."""
        tenant = self.tenant(sequence)
        if tenant not in self._lines:
            self._counters.join(tenant, self._lines.keys())
        bisect.insort(self._lines.setdefault(tenant, []), sequence, key=lambda waiting: waiting.order)
        self.reconsider()

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out: it is let in, or has ended. Raises KeyError or ValueError if it is not in."""
        tenant = self.tenant(sequence)
        self._lines[tenant].remove(sequence)
        if not self._lines[tenant]:
            del self._lines[tenant]
            self._counters.leave(tenant)
        self.reconsider()

    def reconsider(self) -> None:
        """Something happened that may change whose turn it is, such as a sequence's end."""
        self._turn = None

    def first(self, now: float) -> Sequence:
        """Whose turn it is. There must be one."""
        if self._turn is None:
            firsts = (line[0] for line in self._lines.values())
            self._turn = min(firsts, key=lambda sequence: self._rank(sequence, now))
        return self._turn

    def charge(self, sequence: Sequence, *, prompt_tokens: int = 0, generated_tokens: int = 0) -> None:
        """Note what was computed for a sequence, waiting or not."""
        self._counters.charge(
            self.tenant(sequence), prompt_tokens=prompt_tokens, generated_tokens=generated_tokens
        )

    def _rank(self, sequence: Sequence, now: float) -> tuple[int, float, tuple[float, int]]:
        gives_way = max(0, sequence.priority) if sequence.order[0] > now else 0
        return gives_way, self._counters.of(self.tenant(sequence)), sequence.order

    def check_integrity(self) -> list[str]:
        """Every invariant that does not hold; empty when all is well."""
        problems = []
        for tenant, line in self._lines.items():
            if [sequence.order for sequence in line] != sorted(sequence.order for sequence in line):
                problems.append("the waiting sequences are out of order")
            if not line or any(self.tenant(sequence) != tenant for sequence in line):
                problems.append("a waiting sequence stands in another's line")
            if any(sequence.slot is not None for sequence in line):
                problems.append("a waiting sequence holds a slot")
        if self._turn is not None and not any(line[0] is self._turn for line in self._lines.values()):
            problems.append("the turn is nobody's who waits first")
        return problems
