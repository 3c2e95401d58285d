"""Decode steps as CUDA graphs: recorded once per size, replayed with new tokens in the same buffers.

A decode step of a small batch is a long row of short kernels, which Python may not launch as fast as the GPU
runs them. A graph is launched as one. Its shapes and addresses are fixed, so a batch is padded to the next of
a few sizes, and so is the length that its attention reads; tokens and positions are copied into buffers that
never move.

Right means: the same logits as the step without a graph, and no trace of the padding: its rows write to the
cache's scratch column and nowhere else, while recording too, so a graph can be recorded while sequences run.

The recipe (a warm-up on a side stream, then recording into a shared memory pool, largest batch first) is that
of PyTorch's notes on CUDA graphs: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from labsupport.engine.runners.bnb.attention import StepLayout, decode_layout
from labsupport.engine.runners.bnb.slot_cache import SlotCache

Forward = Callable[[torch.Tensor, StepLayout], torch.Tensor]
"""Token ids of shape (N,) and their layout to logits of shape (N, vocabulary)."""

_SHORTEST_TOKENS = 256
_WARM_UP_RUNS = 2


class DecodeGraphs:
    """Graphs of `forward` over the first rows of a cache, recorded when a size is first needed.

    largest_batch: most sequences that a step may have.
    """

    def __init__(self, forward: Forward, cache: SlotCache, *, largest_batch: int, dtype: torch.dtype) -> None:
        device = cache.layer(0)[0].device
        self._forward = forward
        self._cache = cache
        self.largest_batch = largest_batch
        self._dtype = dtype
        self._tokens = torch.zeros(largest_batch, dtype=torch.int64, device=device)
        self._positions = torch.full_like(self._tokens, cache.scratch)
        self._rows = torch.arange(largest_batch, device=device)
        self._pool: Any = None  # the first graph's memory, which the others use too: one runs at a time
        self._recorded: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(batch, length) of every graph recorded so far."""
        return tuple(self._recorded)

    def record_batches(self) -> None:
        """Record every batch size at the shortest length, so that few requests have to wait for a recording.

        The largest first: the smaller ones then find room in its memory.
        """
        for batch in reversed(batch_sizes(self.largest_batch)):
            self._graph(batch, length_size(1, self._cache.columns))

    def logits(self, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """One decode step: token and position of the sequences in rows 0, 1, 2, ….

        Returns (tokens, vocabulary), which the next call overwrites.
        """
        count = len(tokens)
        batch = next(size for size in batch_sizes(self.largest_batch) if size >= count)
        graph, logits = self._graph(batch, length_size(max(positions) + 1, self._cache.columns))
        padding = [self._cache.scratch] * (batch - count)
        device = self._tokens.device
        self._tokens[:count].copy_(torch.tensor(tokens, device=device))
        self._positions[:batch].copy_(torch.tensor([*positions, *padding], device=device))
        graph.replay()
        return logits[:count]

    def _graph(self, batch: int, length: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        recorded = self._recorded.get((batch, length))
        if recorded is None:
            self._positions.fill_(self._cache.scratch)  # what runs while recording touches no sequence
            recorded = self._recorded[batch, length] = self._record(batch, length)
        return recorded

    def _record(self, batch: int, length: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        stream: Any = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_RUNS):  # libraries choose their kernels and take their workspaces now
                self._run(batch, length)
        torch.cuda.current_stream().wait_stream(stream)
        graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._run(batch, length)
        self._pool = graph.pool()
        return graph, logits

    def _run(self, batch: int, length: int) -> torch.Tensor:
        """The step that is recorded: everything it reads lies in buffers that stay where they are."""
        rows, positions = self._rows[:batch], self._positions[:batch]
        layout = decode_layout(self._cache, rows, positions, longest=length, dtype=self._dtype)
        return self._forward(self._tokens[:batch], layout)


def batch_sizes(largest: int) -> tuple[int, ...]:
    """1, 2, 4, … and the largest itself."""
    powers = [1 << exponent for exponent in range(largest.bit_length())]
    return tuple(sorted({*powers, largest}))


def length_size(tokens: int, columns: int) -> int:
    """The next power of two, at least 256 and at most a whole row."""
    return min(max(_SHORTEST_TOKENS, 1 << (tokens - 1).bit_length()), columns)
