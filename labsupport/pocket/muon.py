"""Muon: momentum whose update is made orthogonal, for the matrices of the layers; AdamW takes the rest.

Source: Keller Jordan, "Muon: An optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon/ (the quintic Newton–Schulz coefficients are from there).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from labsupport.pocket.team import Team


def orthogonal(matrices: torch.Tensor, *, iterations: int = 5) -> torch.Tensor:
    """Move the singular values of each matrix of a [count, rows ≤ columns] stack towards 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, then `orthogonal` (Newton–Schulz), with the step scaled for the shape."""

    def __init__(
        self,
        parameters: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        team: Team | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`dtype` is that of the products of Newton–Schulz, which bf16 is enough for, says its source."""
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._team, self._dtype = team or Team(), dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix; those of one shape go through Newton–Schulz together."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for matrix in group["params"]:
                by_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in by_shape.items():
                updates = []
                for matrix in matrices:
                    state = self.state[matrix]
                    average = state.setdefault("momentum", torch.zeros_like(matrix))
                    average.lerp_(_gradient(matrix), 1 - group["momentum"])
                    updates.append(_gradient(matrix).lerp(average, group["momentum"]))
                stack = torch.stack(updates)
                tall = shape[0] > shape[1]
                mine = stack[self._team.rank :: self._team.size].to(self._dtype)
                mine = orthogonal(mine.mT).mT if tall else orthogonal(mine)
                stack.zero_()[self._team.rank :: self._team.size] = mine.to(stack.dtype)
                self._team.sum_(stack)
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for matrix, update in zip(matrices, stack, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(update, alpha=-group["lr"] * scale)


def _gradient(matrix: torch.Tensor) -> torch.Tensor:
    if matrix.grad is None:
        raise ValueError("Muon was asked for a step before a backward pass.")
    return matrix.grad
