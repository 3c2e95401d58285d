"""The KV cache of the bnb runner: one row of cells per slot, and the rows of a decode batch in front.

Right means: what a slot holds is found again under its name, wherever its row has been moved to; and the keys
and values that a decode batch attends to are a slice of the cache, never a copy of it.

A batch of slots 3, 7 and 9 could gather its rows at every step, which reads and writes the whole context once
more per token. Instead the rows of running sequences are kept in front, in rows 0, 1 and 2: something moves
only when a sequence joins or leaves.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

ALIGNED_TOKENS = 8
"""Lengths of keys and masks are rounded up to this: fused attention kernels on GPUs ask for aligned masks."""


class SlotCache:
    """`num_slots` rows of `context_tokens` tokens, for all layers, empty at first.

    columns: cells in a row; at least one more than `context_tokens`.
    scratch: the last column, which no sequence reaches: where the padding of a batch writes.
    """

    def __init__(
        self,
        *,
        layers: int,
        num_slots: int,
        kv_heads: int,
        head_dim: int,
        context_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.columns = rounded_up(context_tokens + 1)
        self.scratch = self.columns - 1
        self._cells = torch.zeros(
            (2, layers, num_slots, kv_heads, self.columns, head_dim), dtype=dtype, device=device
        )
        self._lengths = [0] * num_slots  # by slot
        self._row_of = list(range(num_slots))  # by slot
        self._slot_in = list(range(num_slots))  # by row

    @property
    def num_slots(self) -> int:
        return len(self._lengths)

    @property
    def nbytes(self) -> int:
        return self._cells.nbytes

    def layer(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of one layer, each (rows, KV heads, columns, head length): the cells themselves."""
        return self._cells[0, index], self._cells[1, index]

    def length(self, slot: int) -> int:
        """How many tokens a slot holds."""
        return self._lengths[slot]

    def row(self, slot: int) -> int:
        """Where a slot's cells are now; until `bring_to_front` moves them."""
        return self._row_of[slot]

    def extend(self, slot: int, count: int) -> None:
        """Note that a step has written the next `count` tokens of a slot."""
        self._lengths[slot] += count

    def copy(self, source: int, target: int, length: int) -> None:
        """Make the first `length` tokens of one slot another's too, in cells of its own."""
        if not 0 < length <= self._lengths[source] or self._lengths[target]:
            raise ValueError(
                f"{length} tokens of slot {source}, which holds {self._lengths[source]}, cannot be copied "
                f"into slot {target}, which holds {self._lengths[target]}"
            )
        into, out_of = self._row_of[target], self._row_of[source]
        self._cells[:, :, into, :, :length] = self._cells[:, :, out_of, :, :length]
        self._lengths[target] = length

    def free(self, slot: int) -> None:
        """Empty a slot, and its cells: what one sequence leaves behind is nothing that another could read."""
        self._cells[:, :, self._row_of[slot], :, : self._lengths[slot]] = 0
        self._lengths[slot] = 0

    def bring_to_front(self, slots: Collection[int]) -> None:
        """Give these slots the first rows, in some order. Moves nothing if they have them already."""
        strays = [slot for slot in slots if self._row_of[slot] >= len(slots)]
        wanted = set(slots)
        places = (row for row in range(len(slots)) if self._slot_in[row] not in wanted)
        for slot, place in zip(strays, places, strict=True):
            self._swap(self._row_of[slot], place)

    def _swap(self, first: int, second: int) -> None:
        one, other = self._slot_in[first], self._slot_in[second]
        ones, others = self._lengths[one], self._lengths[other]
        kept = self._cells[:, :, first, :, :ones].clone()
        self._cells[:, :, first, :, :others] = self._cells[:, :, second, :, :others]
        self._cells[:, :, second, :, :ones] = kept
        self._slot_in[first], self._slot_in[second] = other, one
        self._row_of[one], self._row_of[other] = second, first


def rounded_up(tokens: int) -> int:
    """The next multiple of ALIGNED_TOKENS."""
    return -(-tokens // ALIGNED_TOKENS) * ALIGNED_TOKENS
