"""What moves when: the optimizers, and how fast each parameter learns at a step.

What is wired by hand is worth nothing until something uses it, and until then every step of Muon, which
moves all directions alike, wears it down: at the full rate from the start, the notes of `wiring` were gone
after 200 steps. So the embedding and the lowest layers are held while the layers above find the notes, and
then learn slowly; let go altogether, they lost them again. (With them held, the service was found in 11 of 24
held-out reports at step 90; without, in none of 30 at step 600. A tenth of the rate was too little for the
embedding, though: what persons have in common was not found until it learned faster.)
"""

from __future__ import annotations

from typing import Any

import torch

from labsupport.pocket.muon import Muon
from labsupport.pocket.team import Team
from labsupport.pocket.wiring import WIRED_BY_POSITION

EMBEDDING_RATE = 0.1  # of the learning rate of the matrices; AdamW steps are larger than Muon's
RISE_STEPS = 80
AGAIN_FROM = 5300
"""Where the rate is down at zero and starts once more, lower: for the last stage of the `curriculum`."""
AGAIN_SHARE, AGAIN_RISE_STEPS = 0.35, 25
HELD_STEPS = 180
SLOWLY = ((HELD_STEPS, 0.1, 0.1), (1110, 0.2, 0.6))
"""From which step on the lowest layers, and the embedding, learn at which share of the others' rate."""


def optimizers(model: Any, team: Team) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest; each with a group of what is held at first."""
    parts: dict[tuple[bool, bool], list[torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and "layers" in name
        is_held = any(part in name for part in WIRED_BY_POSITION)
        parts.setdefault((is_matrix, is_held), []).append(parameter)
    groups = {
        is_matrix: [
            {"params": parts[is_matrix, is_held], "is_held": is_held}
            for is_held in (False, True)
            if (is_matrix, is_held) in parts
        ]
        for is_matrix in (True, False)
    }
    return [
        Muon(groups[True], lr=0.0, team=team),
        torch.optim.AdamW(groups[False], lr=0.0, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def share_of_rate(step: int, *, steps: int, decay_share: float) -> float:
    """The share of the learning rate at a step: a short rise, level, straight down to zero, and once more."""
    if step >= AGAIN_FROM:
        rise = (step + 1 - AGAIN_FROM) / AGAIN_RISE_STEPS
        left = (steps - step) / max(1, steps - AGAIN_FROM - AGAIN_RISE_STEPS)
        return AGAIN_SHARE * min(rise, left, 1.0)
    end = min(steps, AGAIN_FROM)
    rise = (step + 1) / RISE_STEPS
    left = (end - step) / max(1, round(decay_share * end))
    return min(rise, left, 1.0)


def set_rates(optimizers: list[torch.optim.Optimizer], *, learning_rate: float, step: int) -> None:
    """Give every group its rate; `learning_rate` is that of the matrices at this step."""
    shares = (0.0, 0.0)
    for start, of_layers, of_embedding in SLOWLY:
        if step >= start:
            shares = (of_layers, of_embedding)
    for optimizer, base, share in zip(
        optimizers, (learning_rate, learning_rate * EMBEDDING_RATE), shares, strict=True
    ):
        for group in optimizer.param_groups:
            group["lr"] = base * (share if group["is_held"] else 1.0)
