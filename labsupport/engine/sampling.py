"""From logits to a token, on the logits where they are.

Right means: greedy is the arithmetic maximum; a filter keeps exactly the tokens that its definition keeps;
and a draw depends on nothing but the logits, the parameters, the seed and the tokens that came before, so a
request gives the same text whatever runs beside it, as far as the logits are the same.

First the logits are changed as `penalties` says. The filters come in the order temperature, top-k, top-p,
min-p, each on what the one before left, as in Hugging Face's `generate`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from labsupport.engine import penalties
from labsupport.engine.messages import SamplingParams
from labsupport.engine.plan import Draw, Drawn

Logits = NDArray[np.float32]
_FEW = 256


class Constraint(Protocol):
    """What the next token is held to: a grammar, say."""

    def allows(self, token: int) -> bool:
        """Whether this token may come next."""
        ...

    def allowed(self, logits: Logits) -> Logits:
        """The logits, with those of tokens that may not come next at minus infinity; never all of them."""
        ...


def draw(logits: Logits, how: Draw, constraint: Constraint | None = None) -> Drawn:
    """Draw one token from logits of shape (vocabulary,).

    Under a constraint, a token is drawn as if there were none, which mostly gives one that is allowed. Only
    otherwise is the whole vocabulary asked for, and drawn from again by another number (llama.cpp's
    `common/sampling.cpp` does the same). Without filters the chances are those of drawing from the allowed
    tokens at once: a token of chance p, where a share A is allowed, has p + (1 - A) · p / A = p / A.
    """
    wanted = penalties.changed(logits, how) if penalties.are_wanted(how.params) else logits
    token = _choose(wanted, how, uniform(how))
    if constraint is not None and not constraint.allows(token):
        token = _choose(constraint.allowed(wanted), how, uniform(how, again=True))
    if how.params.logprobs is None:
        return Drawn(token)
    return _with_logprobs(logits, token, how.params.logprobs)


def is_argmax(params: SamplingParams) -> bool:
    """Whether nothing is asked but the largest of the model's own logits."""
    return not (
        params.temperature or params.grammar or params.logprobs is not None or penalties.are_wanted(params)
    )


def probabilities(logits: Logits, params: SamplingParams) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The tokens that can be drawn, likeliest first, and their probabilities; `temperature` is above 0."""
    most = min(params.top_k or len(logits), len(logits))
    # Sorting a whole vocabulary is slow, and what the filters keep is nearly always among the likeliest few.
    count = most if params.top_k else min(_FEW, most)
    tokens, weights = _filtered(logits, params, count)
    while len(tokens) == count < most:  # perhaps they keep more than that
        count = min(16 * count, most)
        tokens, weights = _filtered(logits, params, count)
    return tokens, weights / weights.sum()


def _filtered(
    logits: Logits, params: SamplingParams, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Those of the `count` likeliest that top-p and min-p keep, and their weights."""
    tokens = _likeliest(logits, count)
    weights = _weights(logits[tokens], logits[tokens[0]], params)
    if params.top_p < 1:
        total = (weights if params.top_k else _weights(logits, logits[tokens[0]], params)).sum()
        before = np.cumsum(weights) - weights  # the mass of all that are likelier
        weights = weights[before < params.top_p * total]
    if params.min_p > 0:
        weights = weights[weights >= params.min_p * weights[0]]
    return tokens[: len(weights)], weights


def _weights(logits: Logits, peak: np.float32, params: SamplingParams) -> NDArray[np.float64]:
    return np.exp((logits - peak).astype(np.float64) / params.temperature)


def _choose(logits: Logits, how: Draw, number: float) -> int:
    """The largest, or the one that a number in [0, 1) picks."""
    params = how.params
    if params.temperature == 0:
        return int(np.argmax(logits))
    if params.top_k or params.top_p < 1 or params.min_p > 0:
        tokens, chances = probabilities(logits, params)
    else:  # every token can be drawn, in whatever order
        weights = _weights(logits, logits.max(), params)
        tokens, chances = np.arange(len(logits)), weights / weights.sum()
    sums = np.cumsum(chances)
    place = int(np.searchsorted(sums, number, side="right"))
    if place == len(tokens):  # rounding left the whole sum below a number close to 1: the last of any weight
        place = int(np.searchsorted(sums, sums[-1]))
    return int(tokens[place])


def uniform(how: Draw, *, again: bool = False) -> float:
    """The number in [0, 1) that decides a draw: the `index`-th of the stream of the request's own seed.

    `again` gives another one, independent of it, for a draw that has to be made twice.

    The generator is counter-based, so the n-th number needs no state: nothing is lost when a sequence is
    preempted and computed again, and every runner, on whatever device, draws by the same number.
    """
    numbers = np.random.Generator(np.random.Philox(key=how.seed % 2**64, counter=how.index))
    return float(numbers.random(2)[1] if again else numbers.random())


def _likeliest(logits: Logits, count: int) -> NDArray[np.int64]:
    """The `count` largest, largest first; equal ones by token id."""
    if count < len(logits):
        threshold = np.partition(logits, -count)[-count]
        candidates = np.flatnonzero(logits >= threshold)
    else:
        candidates = np.arange(len(logits))
    return candidates[np.argsort(-logits[candidates], kind="stable")][:count]


def _with_logprobs(logits: Logits, token: int, count: int) -> Drawn:
    """Log probabilities of the model itself: before penalties, temperature and filters."""
    wide = logits.astype(np.float64)
    peak = wide.max()
    normalizer = peak + np.log(np.exp(wide - peak).sum())
    top = (
        tuple((int(other), float(wide[other] - normalizer)) for other in _likeliest(logits, count))
        if count
        else ()
    )
    return Drawn(token, float(wide[token] - normalizer), top)
