"""A runner without a device: what a step costs is arithmetic, and what it draws is a function of the tokens.

Right means: it is as strict as a device. It keeps its own books of what each slot holds, refuses a plan that
does not fit them, and its next token depends on everything before it, so a sequence whose cache was shared,
copied or computed again wrongly says something else than it would alone.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence

from labsupport.engine.plan import CellsExhausted, Copy, Drawn, Free, Plan, RunnerLimits, Share


class ModeledRunner:
    """Takes `seconds_per_step` and `seconds_per_token` of `clock_seconds`, a time of its own."""

    def __init__(
        self,
        limits: RunnerLimits,
        *,
        seconds_per_step: float = 0.0,
        seconds_per_token: float = 0.0,
        end_tokens: frozenset[int] = frozenset(),
    ) -> None:
        self.limits = limits
        self.end_tokens = end_tokens
        self.clock_seconds = 0.0
        self._seconds_per_step = seconds_per_step
        self._seconds_per_token = seconds_per_token
        # A cell is [token, slots that hold it]; a slot is its cells in order.
        self._slots: list[list[list[int]]] = [[] for _ in range(limits.max_slots)]
        self._used_cells = 0

    @property
    def used_cells(self) -> int:
        """Cells that at least one slot holds."""
        return self._used_cells

    def next_token(self, tokens: Sequence[int]) -> int:
        """What follows these tokens."""
        return zlib.crc32(array("q", tokens).tobytes()) % self.limits.vocabulary_size

    def piece(self, token: int) -> bytes:
        """A token's bytes: its number and a blank."""
        return f"{token} ".encode()

    def step(self, plan: Plan) -> list[Drawn]:
        """Execute a plan. Raises ValueError for one that no device could, CellsExhausted where room lacks."""
        for operation in plan.operations:
            self._operate(operation)
        count = sum(len(row.tokens) for row in plan.rows)
        if count > self.limits.step_tokens:
            raise ValueError(f"{count} tokens in a step of at most {self.limits.step_tokens}")
        if self._used_cells + count > self.limits.cells:
            raise CellsExhausted
        drawn = []
        for row in plan.rows:
            cells = self._slots[row.slot]
            if row.start != len(cells) or not row.tokens:
                raise ValueError(f"{row} does not continue its slot, which holds {len(cells)} tokens")
            cells.extend([token, 1] for token in row.tokens)
            if row.draw:
                drawn.append(Drawn(self.next_token([token for token, _ in cells])))
        self._used_cells += count
        self.clock_seconds += self._seconds_per_step + self._seconds_per_token * count
        return drawn

    def close(self) -> None:
        """There is nothing to close."""

    def _operate(self, operation: Share | Copy | Free) -> None:
        if isinstance(operation, Free):
            for cell in self._slots[operation.slot]:
                cell[1] -= 1
                self._used_cells -= not cell[1]
            self._slots[operation.slot] = []
            return
        source, target = self._slots[operation.source], self._slots[operation.target]
        if not 0 < operation.length <= len(source) or target:
            raise ValueError(f"impossible cache operation: {operation}")
        if isinstance(operation, Share):
            if self.limits.prefix_sharing != "alias":
                raise ValueError(f"this device cannot share by alias: {operation}")
            for cell in source[: operation.length]:
                cell[1] += 1
                target.append(cell)
        else:
            if self._used_cells + operation.length > self.limits.cells:
                raise ValueError(f"no room to copy: {operation}")
            target.extend([token, 1] for token, _ in source[: operation.length])
            self._used_cells += operation.length
