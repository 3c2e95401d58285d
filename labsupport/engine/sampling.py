"""From logits to a token, on the logits where they are.

Right means: greedy is the arithmetic maximum; a filter keeps exactly the tokens that its definition keeps;
and a draw depends on nothing but the logits, the parameters, the seed and how many tokens came before, so a
request gives the same text whatever runs beside it, as far as the logits are the same.

The filters come in the order temperature, top-k, top-p, min-p, each on what the one before left, as in
Hugging Face's `generate`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labsupport.engine.messages import SamplingParams
from labsupport.engine.plan import Draw, Drawn

Logits = NDArray[np.float32]


def draw(logits: Logits, how: Draw) -> Drawn:
    """Draw one token from logits of shape (vocabulary,)."""
    token = int(np.argmax(logits)) if how.params.temperature == 0 else _sample(logits, how)
    if how.params.logprobs is None:
        return Drawn(token)
    return _with_logprobs(logits, token, how.params.logprobs)


def probabilities(logits: Logits, params: SamplingParams) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The tokens that can be drawn, likeliest first, and their probabilities; `temperature` is above 0."""
    tokens = _likeliest(logits, params.top_k or len(logits))
    scaled = logits[tokens].astype(np.float64) / params.temperature
    weights = np.exp(scaled - scaled[0])
    if params.top_p < 1:
        before = np.cumsum(weights) - weights  # the mass of all that are likelier
        weights = weights[before < params.top_p * weights.sum()]
    if params.min_p > 0:
        weights = weights[weights >= params.min_p * weights[0]]
    return tokens[: len(weights)], weights / weights.sum()


def _sample(logits: Logits, how: Draw) -> int:
    tokens, chances = probabilities(logits, how.params)
    # A counter-based generator: the n-th number of a seed's stream needs no state, so nothing is lost when a
    # sequence is preempted and computed again.
    generator = np.random.Generator(np.random.Philox(key=how.seed % 2**64, counter=how.index))
    place = int(np.searchsorted(np.cumsum(chances), generator.random(), side="right"))
    return int(tokens[min(place, len(tokens) - 1)])


def _likeliest(logits: Logits, count: int) -> NDArray[np.int64]:
    """The `count` largest, largest first; equal ones by token id."""
    if count < len(logits):
        threshold = np.partition(logits, -count)[-count]
        candidates = np.flatnonzero(logits >= threshold)
    else:
        candidates = np.arange(len(logits))
    return candidates[np.argsort(-logits[candidates], kind="stable")][:count]


def _with_logprobs(logits: Logits, token: int, count: int) -> Drawn:
    """Log probabilities of the model itself: before temperature and filters."""
    wide = logits.astype(np.float64)
    peak = wide.max()
    normalizer = peak + np.log(np.exp(wide - peak).sum())
    top = (
        tuple((int(other), float(wide[other] - normalizer)) for other in _likeliest(logits, count))
        if count
        else ()
    )
    return Drawn(token, float(wide[token] - normalizer), top)
