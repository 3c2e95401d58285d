"""How fast decoding can be at all: a step must read the weights once, and the KV cache of all its sequences.

Right means: nothing is counted that could be left unread, so that no engine can be faster. Of an embedding
that is not also the output matrix, a step reads one row for each sequence.
"""

from __future__ import annotations

from labsupport.anatomy import ModelShape, kv_bytes_per_token
from labsupport.anatomy.arithmetic import decode_seconds_lower_bound
from labsupport.anatomy.bnb_weights import QUANTIZATIONS, bnb_weight_bytes
from labsupport.anatomy.formats import format_named
from labsupport.anatomy.gguf_recipes import gguf_weight_bytes, tensor_format


def weights_bytes(shape: ModelShape, quantization: str) -> int:
    """Bytes of all weights: as bitsandbytes keeps them (bf16, int8, nf4), or in a GGUF file (q4_k_m)."""
    if quantization in QUANTIZATIONS:
        return bnb_weight_bytes(shape, quantization)
    return gguf_weight_bytes(shape, quantization)


def bytes_per_step(shape: ModelShape, quantization: str, *, sequences: int, context_tokens: float) -> float:
    """The least that a decode step reads; each sequence attends to `context_tokens`, on average."""
    row = format_named(_embedding_format(shape, quantization)).bytes_for(shape.hidden)
    weights = weights_bytes(shape, quantization)
    if not shape.tied_embeddings:
        weights += row * (sequences - shape.vocabulary)
    kv = kv_bytes_per_token(shape, "f32" if quantization == "fp32" else "f16")
    return weights + kv * sequences * context_tokens


def limit_tokens_per_second(
    shape: ModelShape,
    quantization: str,
    *,
    sequences: int,
    context_tokens: float,
    bandwidth_bytes_per_second: float,
) -> float:
    """Decoded tokens a second of all sequences together, if a step did nothing but read."""
    least = bytes_per_step(shape, quantization, sequences=sequences, context_tokens=context_tokens)
    return sequences / decode_seconds_lower_bound(
        bytes_read=round(least), bandwidth_bytes_per_second=bandwidth_bytes_per_second
    )


def mean_context(prompt_tokens: int, new_tokens: int) -> float:
    """What a decode step attends to, on the average over an answer, the token itself included.

    The first new token comes of the prompt; step i of the others, from 1, attends to prompt_tokens + i.
    """
    return prompt_tokens + new_tokens / 2


def _embedding_format(shape: ModelShape, quantization: str) -> str:
    if quantization in QUANTIZATIONS:
        return "f32" if quantization == "fp32" else "bf16"
    return tensor_format(shape, quantization, "token_embd.weight")
