"""Several processes that train one model together, each with one thread and a share of every step.

Two processes of one thread keep two cores busier than one process of two threads, because they wait for each
other once a step and not inside every matrix multiplication.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import distributed

Item = TypeVar("Item")


class Team:
    """One of `size` processes. A team of one needs no network and does nothing."""

    def __init__(self, rank: int = 0, size: int = 1, *, meeting_point: Path | None = None) -> None:
        """Meet the others at a file that must not exist before (`meeting_point`, needed where size > 1)."""
        self.rank, self.size = rank, size
        if size > 1:
            distributed.init_process_group(
                "gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=size
            )

    def share(self, items: Sequence[Item], *, costs: Sequence[float]) -> list[Item]:
        """This process's items: each goes to whoever has least to do so far, the costliest first."""
        loads = [0.0] * self.size
        mine = []
        for i in sorted(range(len(items)), key=lambda i: -costs[i]):
            rank = loads.index(min(loads))
            loads[rank] += costs[i]
            if rank == self.rank:
                mine.append(items[i])
        return mine

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add up a tensor over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def leave(self) -> None:
        """End the connection."""
        if self.size > 1:
            distributed.destroy_process_group()
