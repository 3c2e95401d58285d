"""From logits to tokens on the device, for a whole batch with parameters of its own for each row.

Right means: the same token as `engine.sampling`, which says what the parameters mean and is what the tests
compare with. All that crosses to the host is one token id per row, and log probabilities where they were
asked for; all that crosses to the device is a number or two per row.

Sorting a whole vocabulary is slow, and what the filters keep is nearly always among the likeliest few. So
only those are sorted at first, at the price of one more bit for the host: whether that was enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from labsupport.engine.plan import Draw, Drawn
from labsupport.engine.runners.bnb.device_penalties import changed_rows
from labsupport.engine.sampling import uniform

_FEW = 256


def draw_rows(logits: torch.Tensor, draws: Sequence[Draw]) -> list[Drawn]:
    """Draw one token per row from logits of shape (rows, vocabulary) in fp32, on any device."""
    own, logits = logits, changed_rows(logits, draws)
    tokens = logits.argmax(dim=-1)
    hot = [place for place, how in enumerate(draws) if how.params.temperature > 0]
    filtered = [place for place in hot if _has_filter(draws[place])]
    plain = [place for place in hot if not _has_filter(draws[place])]
    if plain:
        tokens[plain] = _drawn_from_all(logits[plain], [draws[place] for place in plain])
    if filtered:
        tokens[filtered] = _drawn_from_filtered(logits[filtered], [draws[place] for place in filtered])
    wanted = [place for place, how in enumerate(draws) if how.params.logprobs is not None]
    drawn = [Drawn(token) for token in tokens.tolist()]
    if wanted:
        asked = [draws[place].params.logprobs or 0 for place in wanted]
        for place, told in zip(wanted, _with_logprobs(own[wanted], tokens[wanted], asked), strict=True):
            drawn[place] = told
    return drawn


def _has_filter(how: Draw) -> bool:
    return bool(how.params.top_k) or how.params.top_p < 1 or how.params.min_p > 0


def _drawn_from_all(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Every token can be drawn, so they need no order: (rows,) token ids."""
    weights = _weights(logits, logits.amax(dim=-1, keepdim=True), draws)
    return _pick(weights, draws)


def _drawn_from_filtered(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Top-k, then top-p, then min-p, each on what the one before left: (rows,) token ids."""
    vocabulary = logits.shape[-1]
    count = min(max(_FEW, *(how.params.top_k + 1 for how in draws)), vocabulary)
    while True:
        ranked, order = _likeliest(logits, count)
        peak = ranked[:, :1]
        weights = _weights(ranked, peak, draws)
        ranks = torch.arange(count, device=logits.device)
        top_k = _column([how.params.top_k or vocabulary for how in draws], logits.device)
        weights = weights.where(ranks < top_k, 0.0)
        # What top-p is a share of: of the k likeliest, or, without top-k, of the whole vocabulary.
        total = (
            _weights(logits, peak, draws)
            .sum(dim=-1, keepdim=True)
            .where(top_k >= vocabulary, weights.sum(dim=-1, keepdim=True))
        )
        before = weights.cumsum(dim=-1) - weights  # the mass of all that are likelier
        top_p = _column([how.params.top_p for how in draws], logits.device)
        min_p = _column([how.params.min_p for how in draws], logits.device)
        weights = weights.where((top_p >= 1) | (before < top_p * total), 0.0)
        weights = weights.where(weights >= min_p * weights[:, :1], 0.0)
        if count == vocabulary or not bool((weights[:, -1] > 0).any()):
            return order.gather(-1, _pick(weights, draws)[:, None])[:, 0]
        count = min(16 * count, vocabulary)  # perhaps a filter keeps more than that


def _weights(logits: torch.Tensor, peak: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    temperature = _column([how.params.temperature for how in draws], logits.device)
    return ((logits - peak).double() / temperature).exp()


def _pick(weights: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """In each row, the place where the running sum of the weights passes the row's own random number."""
    sums = (weights / weights.sum(dim=-1, keepdim=True)).cumsum(dim=-1)
    numbers = _column([uniform(how) for how in draws], weights.device)
    places = torch.searchsorted(sums, numbers, right=True)
    # Rounding may leave the whole sum below a number close to 1: then it is the last token of any weight.
    last = torch.searchsorted(sums, sums[:, -1:].contiguous())
    return places.minimum(last)[:, 0]


def _likeliest(logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest of each row and their token ids, largest first; equal ones by token id."""
    if count == logits.shape[-1]:
        return logits.sort(dim=-1, descending=True, stable=True)
    tokens = logits.topk(count, dim=-1, sorted=False).indices.sort(dim=-1).values
    values, order = logits.gather(-1, tokens).sort(dim=-1, descending=True, stable=True)
    return values, tokens.gather(-1, order)


def _with_logprobs(logits: torch.Tensor, tokens: torch.Tensor, asked: Sequence[int]) -> list[Drawn]:
    """Log probabilities of the model itself: before penalties, temperature and filters."""
    logprobs = logits.double().log_softmax(dim=-1)
    own = logprobs.gather(-1, tokens[:, None])[:, 0]
    most = min(max(asked), logits.shape[-1])
    top_values, top_tokens = _likeliest(logprobs, most)
    rows = zip(tokens.tolist(), own.tolist(), top_tokens.tolist(), top_values.tolist(), asked, strict=True)
    return [
        Drawn(token, logprob, tuple(zip(likeliest[:count], values[:count], strict=True)))
        for token, logprob, likeliest, values, count in rows
    ]


def _column(values: Sequence[float], device: torch.device) -> torch.Tensor:
    """One number per row, shape (rows, 1), in double precision: a top-k of 2³¹ is still a whole number."""
    return torch.tensor(values, dtype=torch.float64, device=device)[:, None]
