"""How a Llama-like model is laid out in GGUF: the metadata keys, the tensors' names, the order of their rows.

Shared by the converter (real weights) and the synthetic writer (random ones). Right means that llama.cpp
computes what transformers computes, which the tests check token by token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from labsupport.anatomy import ModelShape
from labsupport.errors import LabsupportError

# Architecture of the config → architecture of the GGUF.
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TOP_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_name(name: str) -> str | None:
    """The GGUF name of a checkpoint's tensor, or None if there is none."""
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    parts = name.split(".")
    if parts[:2] != ["model", "layers"] or len(parts) < 5:
        return None
    inner = _LAYER_NAMES.get(".".join(parts[3:-1]))
    return f"blk.{parts[2]}.{inner}.{parts[-1]}" if inner else None


def rope_row_order(heads: int, head_dim: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of a query or key matrix's rows in a GGUF of architecture `llama`.

    transformers turns element i of a head together with element i + head_dim/2; llama.cpp turns neighbours.
    So each head's two halves are interleaved: 0, d/2, 1, d/2 + 1, … Without it the model talks nonsense.
    """
    halves = np.arange(heads * head_dim).reshape(heads, 2, head_dim // 2)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(-1)


def llama3_rope_factors(rope: Mapping[str, Any], head_dim: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What each rotary frequency is divided by in Llama 3.1 and later, as the tensor `rope_freqs.weight`.

    Long wavelengths are stretched by `factor`, short ones kept, with a smooth passage between (the rule of
    `rope_type = "llama3"` in transformers).
    """
    base, factor = float(rope["rope_theta"]), float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    original = float(rope["original_max_position_embeddings"])
    factors = []
    for index in range(0, head_dim, 2):
        wavelength = 2 * math.pi * base ** (index / head_dim)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, dtype=np.float32)


def rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary settings of a config, under whichever of transformers' two spellings it uses."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_theta", config.get("rope_theta", 10_000.0))
    rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    if rope["rope_type"] not in ("default", "llama3"):
        raise LabsupportError(
            f"Rotary embeddings of type {rope['rope_type']!r} cannot be converted.", allowed="default, llama3"
        )
    return rope


def write_shape(writer: Any, shape: ModelShape, *, rope_theta: float, norm_epsilon: float) -> None:
    """Add the metadata that describe a shape to a `gguf.GGUFWriter`."""
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(rope_theta)
    writer.add_layer_norm_rms_eps(norm_epsilon)
    writer.add_vocab_size(shape.vocabulary)
