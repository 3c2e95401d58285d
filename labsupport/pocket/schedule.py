"""What moves when: the optimizers, and how fast each parameter learns at a step.

What is wired by hand is worth nothing until something uses it, and until then every step of Muon, which
moves all directions alike, wears it down: at the full rate from the start, the notes of `wiring` were gone
after 200 steps. So the embedding and the lowest layers are held while the layers above find the notes, and
then learn slowly; let go altogether, they lost them again. (With them held, the service was found in 11 of 24
held-out reports at step 90; without, in none of 30 at step 600. A tenth of the rate was too little for the
embedding, though: what persons have in common was not found until it learned faster.)
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import torch

from labsupport.pocket.muon import Muon
from labsupport.pocket.team import Team
from labsupport.pocket.wiring import WIRED_BY_POSITION

EMBEDDING_RATE = 0.1  # of the learning rate of the matrices; AdamW steps are larger than Muon's
RISE_STEPS = 80
_LOWER = ((end, 0.35) for end in (5560, 5980, 6380, 6750, 7100, 7450, 7900))
CYCLES = ((5300, 1.0), *_LOWER, (9050, 0.5), (12200, 0.6), (14500, 0.7))
"""Where the rate is down at zero, and how high it was before. After the first comes the last stage of the
`curriculum`. (In the held-out sentences of that time, 0.165 of the summaries were wrong after 5,300 steps,
0.06 after 5,980, 0.035 after 7,100; of the last two cycles before 7,900, one made it better, one worse. In
the sentences held out now, 0.195 were wrong after 14,500 steps and 0.14 in training's own; after 2,400 steps
more, which are not published, 0.177 and 0.095.)"""
AVERAGED = {12200: 0.5, 14500: 0.5}
"""The weights of which steps are exported, and with which shares. (Held-out summaries that were wrong: 0.215
and 0.195 with either, 0.168 with the mean.)"""
AGAIN_RISE_STEPS = 25
HELD_STEPS = 180
SLOWLY = ((HELD_STEPS, 0.1, 0.1), (1110, 0.2, 0.6))
"""From which step on the lowest layers, and the embedding, learn at which share of the others' rate."""


def optimizers(model: Any, team: Team, *, dtype: torch.dtype = torch.float32) -> list[torch.optim.Optimizer]:
    """Muon (its products in `dtype`) for the matrices of the layers, AdamW for the rest; each with a group of
    what is held at first."""
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
        Muon(groups[True], lr=0.0, team=team, dtype=dtype),
        torch.optim.AdamW(groups[False], lr=0.0, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def share_of_rate(step: int, *, steps: int, decay_share: float) -> float:
    """The share of the learning rate at a step: a short rise, level, straight down to zero, and once more."""
    i = min(bisect_right(CYCLES, step, key=lambda cycle: cycle[0]), len(CYCLES) - 1)
    start = CYCLES[i - 1][0] if i else 0
    end, share = CYCLES[i]
    if steps < end or i == len(CYCLES) - 1:
        end = steps
    done, left = step + 1 - start, end - step
    if i == 0:
        return min(done / RISE_STEPS, left / max(1, round(decay_share * end)), 1.0)
    return share * min(done / AGAIN_RISE_STEPS, left / max(1, end - start - AGAIN_RISE_STEPS), 1.0)


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
