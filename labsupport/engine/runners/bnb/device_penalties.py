"""A bias and penalties on the logits of a whole batch, where the logits are.

Right means: each row as `engine.penalties`, which says what they mean, would change it. What crosses to the
device is the numbers of the tokens concerned, for all rows together; no row of logits crosses anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from labsupport.engine import penalties
from labsupport.engine.plan import Draw


def changed_rows(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Logits (rows, vocabulary) in fp32 as the draws want them; the same tensor if none wants a change."""
    places = [place for place, how in enumerate(draws) if penalties.are_wanted(how.params)]
    if not places:
        return logits
    changes = [penalties.changes(draws[place]) for place in places]

    def rows(tokens: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.repeat(places, [len(each) for each in tokens])).to(logits.device)

    def column(values: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(values)).to(logits.device)

    logits = logits.clone()
    biased = [change.biased for change in changes]
    at = rows(biased), column(biased)
    logits[at] += column([change.bias for change in changes])
    repeated = [change.repeated for change in changes]
    at = rows(repeated), column(repeated)
    by = column([np.full(len(change.repeated), change.repetition) for change in changes])
    before = logits[at]
    logits[at] = torch.where(before > 0, before / by, before * by)
    said = [change.said for change in changes]
    at = rows(said), column(said)
    logits[at] -= column([change.loss for change in changes])
    return logits
