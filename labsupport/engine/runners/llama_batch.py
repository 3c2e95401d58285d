"""The arrays of a `llama_batch`, filled for each step.

Right means: no loop over tokens in Python, and no memory that llama.cpp would free.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np

from labsupport.engine.plan import Row


class LlamaBatch:
    """Room for `size` tokens. `native` is llama.cpp's own struct over these arrays."""

    def __init__(self, size: int) -> None:
        self._tokens = np.zeros(size, dtype=np.int32)
        self._positions = np.zeros(size, dtype=np.int32)
        self._slots = np.zeros(size, dtype=np.int32)
        self._slot_counts = np.ones(size, dtype=np.int32)
        addresses = self._slots.ctypes.data + self._slots.itemsize * np.arange(size)
        self._slot_pointers = addresses.astype(np.uintp)
        self._wants_logits = np.zeros(size, dtype=np.int8)
        fields = dict(llama_cpp.llama_batch._fields_)
        self.native: Any = llama_cpp.llama_batch(
            token=self._tokens.ctypes.data_as(fields["token"]),
            pos=self._positions.ctypes.data_as(fields["pos"]),
            n_seq_id=self._slot_counts.ctypes.data_as(fields["n_seq_id"]),
            seq_id=self._slot_pointers.ctypes.data_as(fields["seq_id"]),
            logits=self._wants_logits.ctypes.data_as(fields["logits"]),
        )

    def fill(self, rows: Sequence[Row]) -> None:
        """Take the tokens of `rows`, and ask for the logits of the last one of each that has a draw."""
        place = 0
        self._wants_logits[:] = 0
        for row in rows:
            end = place + len(row.tokens)
            self._tokens[place:end] = row.tokens
            self._positions[place:end] = range(row.start, row.start + len(row.tokens))
            self._slots[place:end] = row.slot
            self._wants_logits[end - 1] = row.draw is not None
            place = end
        self.native.n_tokens = place
