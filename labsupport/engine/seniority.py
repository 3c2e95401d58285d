"""Who gives way when memory runs out: a rank among those that were let in.

It matters where memory is given out optimistically (admission `preempt`). Right means: priority first, then
arrival, and a place that is kept.

- Within a tenant, the request that its own order puts last (arrival + priority × patience) goes first.
- Between tenants, who arrived last goes first. A priority above 0 counts as that much later an arrival; one
  below 0 counts for nothing here, as in `waiting`: or asking for one would be a way to others' memory. So
  each request brings a place by its arrival, and a tenant's places are held by its requests in their order.
- Whoever was overtaken, for fairness' sake, brings a place behind those of other tenants that were let in
  over it: to have waited longer does not take the memory of those.
- Nothing else counts. In particular nobody's place depends on who still waits.

A place is brought along when a sequence is let in for the first time, and leaves with a sequence that ends.
One that loses its memory keeps its place, and comes back to where it was. Whoever holds the first place
never loses its memory to another, so that all come to an end.
"""

from __future__ import annotations

from collections.abc import Callable

from labsupport.engine.sequence import Sequence


class Seniority:
    """The places of all sequences that were let in and have not ended, whether they hold memory now or not.

    tenant: whose share pays for a sequence.
    """

    def __init__(self, tenant: Callable[[Sequence], str]) -> None:
        self._tenant = tenant
        self._placed: list[Sequence] = []  # first place first
        self._num_admitted = 0

    def arrived(self, sequence: Sequence) -> None:
        """It begins to wait: whoever is let in before it from now on has overtaken it."""
        sequence.arrived_after = self._num_admitted

    def admitted(self, sequence: Sequence) -> None:
        """It is let in for the first time, and gets a place. Its tenant's others may change theirs."""
        tenant = self._tenant(sequence)
        seconds = max(sequence.order[0], sequence.arrived)
        for other in self._placed:
            if other.place[1] >= sequence.arrived_after and self._tenant(other) != tenant:
                seconds = max(seconds, other.place[0])
        sequence.place = (seconds, self._num_admitted)
        self._num_admitted += 1
        own = [sequence, *(other for other in self._placed if self._tenant(other) == tenant)]
        places = sorted(each.place for each in own)
        for each, place in zip(sorted(own, key=lambda each: each.order), places, strict=True):
            each.place = place
        self._placed.append(sequence)
        self._placed.sort(key=lambda each: each.place)

    def ended(self, sequence: Sequence) -> None:
        """It ended, wherever it was."""
        if sequence.admitted is not None:
            self._placed.remove(sequence)

    def check_integrity(self) -> list[str]:
        """Every invariant that does not hold; empty when all is well."""
        problems = []
        if [each.place for each in self._placed] != sorted({each.place for each in self._placed}):
            problems.append("two sequences have one place, or they are out of order")
        last: dict[str, tuple[float, int]] = {}
        for each in self._placed:
            if last.get(self._tenant(each), each.order) > each.order:
                problems.append(f"{each.request_id} stands behind a less favoured one of its own tenant")
            last[self._tenant(each)] = each.order
        return problems
