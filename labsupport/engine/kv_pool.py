"""The cells of a KV cache and who holds them.

A cell holds the keys and values of one token. A slot is a row of cells; two slots may hold the same cell (a
shared prefix). A slot is *open* while a sequence runs in it and *retired* while it is only kept for its
prefix. Memory knows no policy: whom to admit and what to drop is the scheduler's business. Right means that
`check_integrity` stays empty after any sequence of calls.
"""

from __future__ import annotations

from collections.abc import Mapping


class KVPool:
    """`num_cells` cells and `num_slots` slots, all free at first."""

    def __init__(self, *, num_cells: int, num_slots: int) -> None:
        self.num_cells = num_cells
        self._free_cells = list(range(num_cells - 1, -1, -1))
        self._free_slots = list(range(num_slots - 1, -1, -1))
        self._cells: dict[int, list[int]] = {}
        self._retired: set[int] = set()
        self._holders = [0] * num_cells
        self._open_holders = [0] * num_cells
        self._num_pinned = 0

    @property
    def num_free(self) -> int:
        """Cells that nobody holds."""
        return len(self._free_cells)

    @property
    def num_used(self) -> int:
        """Cells that open slots hold."""
        return self._num_pinned

    @property
    def num_cached(self) -> int:
        """Cells that only retired slots hold."""
        return self.num_cells - self._num_pinned - len(self._free_cells)

    @property
    def num_available(self) -> int:
        """Cells that are free or would be if every retired slot were dropped."""
        return self.num_cells - self._num_pinned

    def length(self, slot: int) -> int:
        """How many tokens a slot holds."""
        return len(self._cells[slot])

    def holdings(self) -> Mapping[int, list[int]]:
        """The cells of every slot in use, open or retired, in its tokens' order; not to be changed."""
        return self._cells

    def open(self) -> int:
        """Take a free slot. Raises IndexError when there is none."""
        slot = self._free_slots.pop()
        self._cells[slot] = []
        return slot

    def append(self, slot: int, count: int) -> None:
        """Give an open slot `count` more cells.

        Raises MemoryError, having changed nothing, when they lack.
        """
        if count > len(self._free_cells):
            raise MemoryError(f"{count} cells wanted, {len(self._free_cells)} free")
        for _ in range(count):
            cell = self._free_cells.pop()
            self._holders[cell] = self._open_holders[cell] = 1
            self._cells[slot].append(cell)
        self._num_pinned += count

    def share(self, source: int, target: int, length: int) -> None:
        """Let the empty open slot `target` hold the first `length` cells of `source` too."""
        for cell in self._cells[source][:length]:
            self._holders[cell] += 1
            self._open_holders[cell] += 1
            self._num_pinned += self._open_holders[cell] == 1
            self._cells[target].append(cell)

    def drop_tail(self, slot: int, length: int) -> None:
        """Shorten an open slot to `length` tokens; the cells dropped must be its own."""
        cells = self._cells[slot]
        while len(cells) > length:
            self._release(cells.pop(), is_open=True)

    def retire(self, slot: int) -> None:
        """Keep an open slot's cells, but only for as long as nobody needs the room."""
        self._retired.add(slot)
        for cell in self._cells[slot]:
            self._open_holders[cell] -= 1
            self._num_pinned -= self._open_holders[cell] == 0

    def close(self, slot: int) -> None:
        """Free a slot, open or retired, and every cell that no other slot holds."""
        is_open = slot not in self._retired
        self._retired.discard(slot)
        for cell in self._cells.pop(slot):
            self._release(cell, is_open=is_open)
        self._free_slots.append(slot)

    def _release(self, cell: int, *, is_open: bool) -> None:
        if is_open:
            self._open_holders[cell] -= 1
            self._num_pinned -= self._open_holders[cell] == 0
        self._holders[cell] -= 1
        if not self._holders[cell]:
            self._free_cells.append(cell)

    def check_integrity(self) -> list[str]:
        """What is wrong with the books, recounted from the slots; empty when all is well."""
        holders = [0] * self.num_cells
        open_holders = [0] * self.num_cells
        problems = []
        for slot, cells in self._cells.items():
            if len(set(cells)) != len(cells):
                problems.append(f"slot {slot} holds a cell twice")
            for cell in cells:
                holders[cell] += 1
                open_holders[cell] += slot not in self._retired
        if holders != self._holders or open_holders != self._open_holders:
            problems.append("cells are held by other slots than the count of holders says")
        if sorted(self._free_cells) != [cell for cell, count in enumerate(holders) if not count]:
            problems.append("the free list is not the list of cells that nobody holds")
        if self._num_pinned != sum(count > 0 for count in open_holders):
            problems.append(f"{self._num_pinned} cells are said to be held by open slots")
        if set(self._free_slots) & set(self._cells) or not self._retired <= set(self._cells):
            problems.append("a slot is in use and free at once")
        return problems
