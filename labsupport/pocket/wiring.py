"""Starting values that can copy and look back: circuits wired by hand, for training to refine.

A model this small learns the grammar of its corpus long before it learns to copy, and copying is what most
of its skills need. So it does not start from noise alone. In layer 0, heads look one token back, two tokens
back and at a blur of the last eight, and leave notes of what they saw beside the current token. In layer 1,
two heads look for the place whose notes agree with what has just been read, and copy the token that stands
there. That is the induction circuit of Olsson et al., "In-context Learning and Induction Heads", 2022,
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/, with more than one token of
context, so that it can tell `otter: 4731` from the other entries of a list.

A name in a report is known by what stands behind it (`order-api was down`) and is said from its beginning,
one to six tokens back. So the fourth head of layer 0 notes at every piece of a word with which token the word
began, two heads of layer 2 hand that note on to the next position, and heads of layers 3 and 4 can say it;
where they look is a question of meaning, and left to training. Everything else starts as noise.

Right means: before any training, a repeated row of random tokens is predicted far better than by chance; of a
short list, entries are quoted with their digits; and behind most words stands which token they began with.
"""

from __future__ import annotations

from typing import Any

import torch

_ONE_BACK, _TWO_BACK, _BLUR = 14, 8, 18  # numbers in a note of each kind
_START = 28  # numbers in the note of what a word began with
_CONSTANT = (
    0.25  # column 0 of every embedding, for heads that look at positions only; it moves all logits alike
)
_SHARPNESS = 7.0
_BLUR_SHARPNESS = 3.0
_BLUR_CENTRE = 4.5  # tokens back
_NOTE_STRENGTH = 0.15
_MATCH_STRENGTH = 5.0
_COPY_STRENGTH = 0.8
_START_SHARPNESS = 10.0
_RECENCY = 3.0  # how much a nearer beginning of a word counts more than one that is farther away
_SIZE = 6.2  # measured length of the residual stream behind layer 1, where a bare embedding has 1
_SHIFT_SHARPNESS = (20.0, 16.0, 8.0, 4.0, 3.0, 2.0)  # of the fastest pairs; the slower ones blur
_SAY_STRENGTH = 3.0
_IS_START = 0.25  # column 1 of the embedding of a token that begins a word, for the head that looks for it
_QUIET = 0.02  # of the usual strength, for every part that is not wired
WIRED_BY_POSITION = ("embed_tokens.", "layers.0.", "layers.1.", "layers.2.")
"""What has to be held until the layers above have found out what it is good for."""


@torch.no_grad()
def wire(model: Any, *, word_starts: torch.Tensor, generator: torch.Generator) -> None:
    """Overwrite the starting values of a Llama with four query heads of 64 and two KV heads.

    word_starts: for each token of the vocabulary, whether a word begins with it.
    """
    config = model.config
    head, pairs = config.head_dim, config.head_dim // 2
    turns = config.rope_parameters["rope_theta"] ** (-torch.arange(pairs) / pairs)  # radians a token
    notes = _Notes(config.hidden_size)
    directions = torch.empty(notes.first - 2, notes.first - 2)
    torch.nn.init.orthogonal_(directions, generator=generator)
    sides = [directions[kv * 40 : (kv + 1) * 40].split((_ONE_BACK, _TWO_BACK, _BLUR)) for kv in (0, 1)]
    meaning = slice(2, notes.first)  # the columns of the residual stream that say which token it is

    embedding = model.model.embed_tokens.weight
    embedding[:, 0] = _CONSTANT
    embedding[:, 1] = _IS_START * word_starts
    embedding[:, meaning] /= embedding[:, meaning].norm(dim=1, keepdim=True).clamp(min=1e-6)
    embedding[:, notes.first :] = 0.0
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.mul_(_QUIET)
        layer.mlp.down_proj.weight.mul_(_QUIET)

    # Layer 0: KV head 0 serves the sharp looks of query heads 0 and 1, KV head 1 the blur of query head 2.
    look = model.model.layers[0].self_attn
    for projection in (look.q_proj, look.k_proj, look.v_proj, look.o_proj):
        projection.weight.zero_()
    column_0 = _CONSTANT / ((1 + _CONSTANT**2) / config.hidden_size) ** 0.5  # after RMSNorm
    sharp = (torch.arange(pairs) < 12) * (_SHARPNESS / column_0)
    blurred = torch.zeros(pairs)
    blurred[2:5], blurred[5:14] = 1.0, 1.5**0.5
    blurred *= _BLUR_SHARPNESS / column_0
    query, key = look.q_proj.weight[:, 0].view(4, 2, pairs), look.k_proj.weight[:, 0].view(2, 2, pairs)
    for q, kv, strength, back in ((0, 0, sharp, 1.0), (1, 0, sharp, 2.0), (2, 1, blurred, _BLUR_CENTRE)):
        key[kv, 0] = strength
        query[q, 0], query[q, 1] = strength * (back * turns).cos(), -strength * (back * turns).sin()
    # Query head 3 looks for the nearest token that begins a word, with keys of its own in the slowest pairs.
    nearer = blurred.clone()
    nearer[:3], nearer[3:] = 0.0, nearer[3:] * _RECENCY
    query[3, 1] = nearer  # minus the sine of the distance: falls with every token
    look.k_proj.weight[:, 1].view(2, 2, pairs)[1, 0, 24:] = _START_SHARPNESS
    query[3, 0, 24:] = _START_SHARPNESS
    seen = (
        torch.cat((sides[0][0], sides[1][0], sides[0][1], sides[1][1])),
        torch.cat((sides[0][2], sides[1][2], directions[-_START:])),
    )
    for kv in (0, 1):
        look.v_proj.weight[kv * head : kv * head + len(seen[kv]), meaning] = seen[kv]
    for kv in (0, 1):
        one, two, blur = kv * _ONE_BACK, 2 * _ONE_BACK + kv * _TWO_BACK, kv * _BLUR
        for q, rows, value, strength in (
            (0, notes.one_back[kv], one, 1.0),
            (0, notes.one_back_for_match[kv], two, 1.0),
            (1, notes.two_back[kv], two, 1.0),
            (2, notes.blur[kv], blur, 2.0),
            *([(3, notes.start, 2 * _BLUR, 1.0)] if kv == 1 else []),
        ):
            width = rows.stop - rows.start
            columns = slice(q * head + value, q * head + value + width)
            look.o_proj.weight[rows, columns] = _NOTE_STRENGTH * strength * torch.eye(width)

    # Layer 1: query heads 0 and 2 compare what was just read with the notes, and copy what stands there.
    match = model.model.layers[1].self_attn
    slow = torch.arange(pairs - 20, pairs)  # pairs that turn so slowly that distance hardly matters
    slow = torch.cat((slow, slow + pairs))[torch.randperm(40, generator=generator)]
    for kv in (0, 1):
        query_rows, key_rows = slice(2 * kv * head, (2 * kv + 1) * head), slice(kv * head, (kv + 1) * head)
        for projection, rows in ((match.q_proj, query_rows), (match.k_proj, key_rows)):
            projection.weight[rows] = 0.0
        parts = slow.split((_ONE_BACK, _TWO_BACK, _BLUR))
        match.q_proj.weight[query_rows.start + parts[0], meaning] = _MATCH_STRENGTH * sides[kv][0]
        for part, asked, strength in ((1, notes.one_back_for_match[kv], 3.0), (2, notes.blur[kv], 3.0)):
            rows = query_rows.start + parts[part]
            match.q_proj.weight[rows, asked] = _MATCH_STRENGTH * strength * torch.eye(len(rows))
        for part, noted in enumerate((notes.one_back[kv], notes.two_back[kv], notes.blur[kv])):
            match.k_proj.weight[key_rows.start + parts[part], noted] = torch.eye(len(parts[part]))
        token = directions[kv * head : (kv + 1) * head]
        match.v_proj.weight[key_rows] = 0.0
        match.v_proj.weight[key_rows, meaning] = token
        match.o_proj.weight[:, query_rows] = 0.0
        match.o_proj.weight[meaning, query_rows] = _COPY_STRENGTH * token.T

    _wire_look_back(model, notes, directions[-_START:])


def _wire_look_back(model: Any, notes: _Notes, started: torch.Tensor) -> None:
    """Layer 2 puts the note of one position back in the place of the own; layers 3 and 4 can say notes."""
    config = model.config
    head, pairs = config.head_dim, config.head_dim // 2
    turns = config.rope_parameters["rope_theta"] ** (-torch.arange(pairs) / pairs)
    shift = model.model.layers[2].self_attn
    strength = torch.zeros(pairs)
    strength[: len(_SHIFT_SHARPNESS)] = torch.tensor(_SHIFT_SHARPNESS) * head**0.5
    strength = strength.sqrt() * (_SIZE / _CONSTANT / config.hidden_size**0.5)
    shift.q_proj.weight[: 2 * head] = 0.0
    shift.k_proj.weight[:head] = 0.0
    shift.v_proj.weight[:head] = 0.0
    shift.o_proj.weight[:, : 2 * head] = 0.0
    query, key = shift.q_proj.weight[:, 0].view(4, 2, pairs), shift.k_proj.weight[:, 0].view(2, 2, pairs)
    key[0, 0] = strength
    shift.v_proj.weight[:_START, notes.start] = torch.eye(_START)
    for q, back, sign in ((0, 1.0, 1.0), (1, 0.0, -1.0)):
        query[q, 0], query[q, 1] = strength * (back * turns).cos(), -strength * (back * turns).sin()
        shift.o_proj.weight[notes.start, q * head : q * head + _START] = (
            sign * _SIZE / config.hidden_size**0.5 * torch.eye(_START)
        )
    for layer in (3, 4):
        say = model.model.layers[layer].self_attn
        say.v_proj.weight[:_START] = 0.0
        say.v_proj.weight[:_START, notes.start] = torch.eye(_START)
        for q in (0, 1):
            columns = slice(q * head, q * head + _START)
            say.o_proj.weight[:, columns] = 0.0
            say.o_proj.weight[2 : notes.first, columns] = (
                _SAY_STRENGTH * _SIZE / config.hidden_size**0.5 * started.T
            )


class _Notes:
    """Which columns of the residual stream, from `first` to its end, hold which note for which KV head."""

    def __init__(self, hidden_size: int) -> None:
        widths = (_ONE_BACK, _TWO_BACK, _TWO_BACK, _BLUR)
        self.first = hidden_size - 2 * sum(widths) - _START
        place = self.first
        columns: list[list[slice]] = [[], [], [], []]
        for _ in (0, 1):
            for kind, width in enumerate(widths):
                columns[kind].append(slice(place, place + width))
                place += width
        self.start = slice(place, place + _START)
        self.one_back, self.two_back, self.one_back_for_match, self.blur = columns
