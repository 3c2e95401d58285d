"""Attention of one step over the slots' own keys and values; everything else is done for all tokens at once.

Right means: each token attends to the tokens of its own sequence up to itself, and to nothing else.

The matrices of a model do not care whose token a row is, so a step runs all its tokens, of decoding sequences
and of prompts, as one long row through them, and reads the weights once. Only attention looks at who is who
("selective batching": Yu et al. 2022, Orca, https://www.usenix.org/conference/osdi22/presentation/yu). It is
handed to transformers as an attention function of its own, so the model's code is transformers' own.

With grouped-query attention, the query heads that share a KV head are laid side by side as if they were more
queries of one head: the same products, without repeating keys and values in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from labsupport.engine.runners.bnb.slot_cache import SlotCache, rounded_up

SLOT_ATTENTION = "labsupport_slots"
"""The name under which transformers knows `attend`."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Neighbouring tokens of one sequence: those of a step from `begin` to `end`, of one cache row.

    mask: (groups × tokens, length), 0 where a query may look and -inf where not.
    """

    row: int
    begin: int
    end: int
    mask: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLayout:
    """Where the N tokens of a step belong.

    rows, positions: cache row and position of each, shape (N,).
    num_decoding: so many tokens come first, one each of rows 0, 1, 2, ….
    decode_mask: (num_decoding, 1, 1, length), 0 where such a token may look and -inf where not.
    """

    cache: SlotCache
    rows: torch.Tensor
    positions: torch.Tensor
    num_decoding: int
    decode_mask: torch.Tensor | None
    chunks: tuple[Chunk, ...] = ()


def decode_layout(
    cache: SlotCache, rows: torch.Tensor, positions: torch.Tensor, *, longest: int, dtype: torch.dtype
) -> StepLayout:
    """A step of one token each in rows 0, 1, 2, …; no position is at or over `longest`.

    (Except those of padding, whose position is the scratch column; what they compute is not used.)
    """
    length = min(rounded_up(longest), cache.columns)
    return StepLayout(
        cache=cache,
        rows=rows,
        positions=positions,
        num_decoding=len(positions),
        decode_mask=_causal_mask(positions, length, dtype)[:, None, None],
    )


def mixed_layout(
    cache: SlotCache,
    rows: torch.Tensor,
    positions: torch.Tensor,
    *,
    decoding_positions: Sequence[int],
    chunk_spans: Sequence[tuple[int, int, int]],
    groups: int,
    dtype: torch.dtype,
) -> StepLayout:
    """A step of decoding tokens first, then of chunks: (row, position of the first token, tokens) of each.

    groups: query heads to a KV head.
    """
    count = len(decoding_positions)
    mask = None
    if count:
        longest = max(decoding_positions) + 1
        mask = decode_layout(cache, rows[:count], positions[:count], longest=longest, dtype=dtype).decode_mask
    chunks, begin = [], count
    for row, start, tokens in chunk_spans:
        end = begin + tokens
        chunk_mask = _causal_mask(positions[begin:end], rounded_up(start + tokens), dtype)
        chunks.append(Chunk(row, begin, end, chunk_mask.repeat(groups, 1)))
        begin = end
    return StepLayout(
        cache=cache,
        rows=rows,
        positions=positions,
        num_decoding=count,
        decode_mask=mask,
        chunks=tuple(chunks),
    )


def _causal_mask(positions: torch.Tensor, length: int, dtype: torch.dtype) -> torch.Tensor:
    """(queries, length): 0 up to each query's own position, -inf after it."""
    places = torch.arange(length, device=positions.device)
    mask = torch.zeros((len(positions), length), dtype=dtype, device=positions.device)
    return mask.masked_fill_(places > positions[:, None], float("-inf"))


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    step_layout: StepLayout,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Store the new keys and values, and attend; in transformers' form of an attention function.

    query: (1, heads, N, head length), already turned by its positions; key, value: (1, KV heads, N, head
    length). Returns (1, N, heads, head length).
    """
    step = step_layout
    keys, values = step.cache.layer(int(module.layer_idx))  # type: ignore[arg-type]
    keys[step.rows, :, step.positions] = key[0].transpose(0, 1)
    values[step.rows, :, step.positions] = value[0].transpose(0, 1)
    heads, tokens, head_dim = query.shape[1:]
    kv_heads, decoding = key.shape[1], step.num_decoding
    attended = query.new_empty((tokens, heads, head_dim))
    if step.decode_mask is not None:
        length = step.decode_mask.shape[-1]
        attended[:decoding] = scaled_dot_product_attention(
            query[0, :, :decoding].transpose(0, 1).reshape(decoding, kv_heads, -1, head_dim),
            keys[:decoding, :, :length],
            values[:decoding, :, :length],
            attn_mask=step.decode_mask,
            scale=scaling,
        ).reshape(decoding, heads, head_dim)
    for chunk in step.chunks:
        length = chunk.mask.shape[-1]
        attended[chunk.begin : chunk.end] = (
            scaled_dot_product_attention(
                query[0, :, chunk.begin : chunk.end].reshape(1, kv_heads, -1, head_dim),
                keys[chunk.row, :, :length][None],
                values[chunk.row, :, :length][None],
                attn_mask=chunk.mask,
                scale=scaling,
            )
            .reshape(heads, -1, head_dim)
            .transpose(0, 1)
        )
    return attended[None], None
