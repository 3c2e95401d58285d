"""Starting values that can copy: an induction head, wired by hand in the first two layers, for training to
refine.

A model this small learns the grammar of its corpus long before it learns to copy, and copying is what most
of its skills need. So it does not start from noise alone. In layer 0 two heads look at the token before and
write a note of it beside the current token; in layer 1 two heads look for the place whose note is the
current token, and copy what stands there. That is the induction circuit of Olsson et al., "In-context
Learning and Induction Heads", 2022,
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/. Everything else starts as
noise.

Right means: before any training, a random row of tokens that is repeated is predicted far better than by
chance.
"""

from __future__ import annotations

from typing import Any

import torch

_NOTE_WIDTH = 40  # numbers in the note that one head leaves about the token before
_FAST_PAIRS = 12  # the rotary pairs that tell neighbouring positions apart
_LOOKBACK_SHARPNESS = 7.0
_MATCH_SHARPNESS = 5.0
_NOTE_STRENGTH = 0.09
_COPY_STRENGTH = 0.8
_QUIET = 0.05  # of the usual strength, for every part that is not wired


@torch.no_grad()
def wire_induction(model: Any, *, generator: torch.Generator) -> None:
    """Overwrite the starting values of a Llama whose query heads 0 and 2 belong to KV heads 0 and 1."""
    config = model.config
    hidden, head, pairs = config.hidden_size, config.head_dim, config.head_dim // 2
    notes = hidden - 2 * _NOTE_WIDTH  # the residual stream's last columns are kept free for the notes
    frequencies = config.rope_parameters["rope_theta"] ** (-torch.arange(pairs) / pairs)
    fast = (torch.arange(pairs) < _FAST_PAIRS).float()
    slow = torch.arange(pairs - _NOTE_WIDTH // 2, pairs)
    slow = torch.cat((slow, slow + pairs))  # pairs that turn so slowly that distance hardly matters
    directions = torch.empty(notes - 1, notes - 1)
    torch.nn.init.orthogonal_(directions, generator=generator)

    embedding = model.model.embed_tokens.weight
    embedding[:, 0] = 0.25  # a constant, for heads that look at positions only; it moves all logits alike
    embedding[:, 1:notes] /= embedding[:, 1:notes].norm(dim=1, keepdim=True).clamp(min=1e-6)
    embedding[:, notes:] = 0.0
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.mul_(_QUIET)
        layer.mlp.down_proj.weight.mul_(_QUIET)

    before, match = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    constant = 0.25 / (1.0625 / hidden) ** 0.5  # what RMSNorm makes of column 0 in layer 0
    for kv in (0, 1):
        query, key = slice(2 * kv * head, (2 * kv + 1) * head), slice(kv * head, (kv + 1) * head)
        note = slice(notes + kv * _NOTE_WIDTH, notes + (kv + 1) * _NOTE_WIDTH)
        seen = directions[kv * head : (kv + 1) * head]  # which side of a token this head knows

        for projection, rows in ((before.q_proj, query), (before.k_proj, key), (before.v_proj, key)):
            projection.weight[rows] = 0.0
        size = _LOOKBACK_SHARPNESS / constant
        before.q_proj.weight[query, 0] = torch.cat((fast, torch.zeros(pairs))) * size
        before.k_proj.weight[key, 0] = torch.cat((fast * frequencies.cos(), fast * frequencies.sin())) * size
        before.v_proj.weight[key, 1:notes] = seen
        before.o_proj.weight[:, query] = 0.0
        before.o_proj.weight[note, query] = _NOTE_STRENGTH * torch.eye(_NOTE_WIDTH, head)

        for projection, rows in ((match.q_proj, query), (match.k_proj, key), (match.v_proj, key)):
            projection.weight[rows] = 0.0
        rows = slow + query.start
        match.q_proj.weight[rows, 1:notes] = _MATCH_SHARPNESS * seen[:_NOTE_WIDTH]
        match.k_proj.weight[slow + key.start, note] = torch.eye(_NOTE_WIDTH)
        match.v_proj.weight[key, 1:notes] = seen
        match.o_proj.weight[:, query] = 0.0
        match.o_proj.weight[1:notes, query] = _COPY_STRENGTH * seen.T
