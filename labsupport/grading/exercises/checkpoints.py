"""Tiny safetensors files and checkpoints to draw exercises from.

The layout is that of the safetensors README: 8 bytes with the length N of the header (unsigned,
little-endian), N bytes of JSON, then the tensors' bytes; `data_offsets` count from the first byte after the
header.
"""

from __future__ import annotations

import json
import random
from typing import Any

from labsupport.grading.inside.plain import Directory, File

BYTES_PER_VALUE = {"F32": 4, "BF16": 2, "F16": 2, "I8": 1, "F8_E4M3": 1}


def values_in(shape: list[int]) -> int:
    """How many numbers a tensor of this shape holds; 1 for the empty shape."""
    count = 1
    for length in shape:
        count *= length
    return count


def safetensors(
    tensors: dict[str, tuple[str, list[int]]], chance: random.Random, metadata: dict[str, str] | None = None
) -> bytes:
    """A valid file of `name: (dtype, shape)`, padded with spaces to 8 bytes as the real writer does."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    begin = 0
    for name, (dtype, shape) in tensors.items():
        end = begin + values_in(shape) * BYTES_PER_VALUE[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + chance.randbytes(begin)


def header_of(content: bytes) -> dict[str, Any]:
    """The JSON header of a safetensors file's bytes."""
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    return header


def llama_config(chance: random.Random) -> dict[str, Any]:
    """The `config.json` of a model so small that its checkpoint is a few kilobytes."""
    heads = chance.choice([2, 4])
    return {
        "model_type": "llama",
        "vocab_size": chance.randrange(40, 90),
        "hidden_size": heads * 8,
        "intermediate_size": 8 * chance.randrange(4, 9),
        "num_hidden_layers": chance.randrange(1, 4),
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "tie_word_embeddings": chance.random() < 0.5,
    }


def llama_tensors(config: dict[str, Any]) -> dict[str, tuple[str, list[int]]]:
    """Names, dtypes and shapes as transformers saves them for `config` (without biases)."""
    hidden, ffn, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head_dim = hidden // config["num_attention_heads"]
    keys = config["num_key_value_heads"] * head_dim
    shapes = {"model.embed_tokens.weight": [vocabulary, hidden]}
    for layer in range(config["num_hidden_layers"]):
        for name, shape in {
            "input_layernorm": [hidden],
            "self_attn.q_proj": [hidden, hidden],
            "self_attn.k_proj": [keys, hidden],
            "self_attn.v_proj": [keys, hidden],
            "self_attn.o_proj": [hidden, hidden],
            "post_attention_layernorm": [hidden],
            "mlp.gate_proj": [ffn, hidden],
            "mlp.up_proj": [ffn, hidden],
            "mlp.down_proj": [hidden, ffn],
        }.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    shapes["model.norm.weight"] = [hidden]
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = [vocabulary, hidden]
    return {name: ("BF16", shape) for name, shape in shapes.items()}


def checkpoint(
    config: dict[str, Any], tensors: dict[str, tuple[str, list[int]]], chance: random.Random
) -> Directory:
    """A folder with `config.json` and `model.safetensors`, as a hub serves it."""
    return Directory(
        (
            File("config.json", json.dumps(config, indent=2).encode()),
            File("model.safetensors", safetensors(tensors, chance, {"format": "pt"})),
        )
    )
