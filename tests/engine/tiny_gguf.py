"""Real GGUF models, small enough to be made in a test: a Llama with a byte-level vocabulary.

Every byte is a token of its own, so any text can be generated and an emoji always spans four tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, FEED_FORWARD, CONTEXT = 256, 2, 4, 2, 64, 512, 512
END, VOCABULARY = 256, 258
KV_ELEMENTS_PER_TOKEN = 2 * LAYERS * KV_HEADS * HEAD

RECITED = "ab 🙂cd!\n"
"""What the tests let a reciting model say, round and round: an emoji of four tokens among letters."""

_SHAPES = {
    "attn_q": (HEADS * HEAD, HIDDEN),
    "attn_k": (KV_HEADS * HEAD, HIDDEN),
    "attn_v": (KV_HEADS * HEAD, HIDDEN),
    "attn_output": (HIDDEN, HEADS * HEAD),
    "ffn_gate": (FEED_FORWARD, HIDDEN),
    "ffn_up": (FEED_FORWARD, HIDDEN),
    "ffn_down": (HIDDEN, FEED_FORWARD),
}


def write_random(path: Path, *, seed: int = 0, scale: float = 0.08) -> Path:
    """A model of random weights; the larger `scale`, their spread, the surer it is of its next token."""
    random = np.random.default_rng(seed)
    tensors = {
        f"blk.{layer}.{name}.weight": random.normal(0, scale, shape)
        for layer in range(LAYERS)
        for name, shape in _SHAPES.items()
    }
    for name in ("token_embd.weight", "output.weight"):
        tensors[name] = random.normal(0, scale, (VOCABULARY, HIDDEN))
    return _write(path, tensors)


def write_reciting(path: Path, text: str) -> Path:
    """A model that says one thing: after each byte of `text` comes the next, and after the last the first.

    No byte may occur twice, for the model looks at nothing but the last one: its layers add nothing, and its
    output matrix is its embedding, one byte further.
    """
    circle = text.encode()
    if len(set(circle)) < len(circle):
        raise ValueError(f"a byte occurs twice in {text!r}")
    embedding = np.random.default_rng(0).normal(0, 1, (VOCABULARY, HIDDEN))
    output = np.zeros((VOCABULARY, HIDDEN))
    for place, byte in enumerate(circle):
        output[byte] = embedding[circle[place - 1]]
    zeros = {
        f"blk.{layer}.{name}.weight": np.zeros(shape)
        for layer in range(LAYERS)
        for name, shape in _SHAPES.items()
    }
    return _write(path, zeros | {"token_embd.weight": embedding, "output.weight": output})


def _write(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*_byte_symbols(), "<|end|>", "<|pad|>"])
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 2)
    writer.add_token_merges(["z z"])  # llama.cpp wants the list to be there; "zz" is no token
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(VOCABULARY - 1)
    for name, values in tensors.items():
        writer.add_tensor(name, values.astype(np.float16))
    for name in [
        "output_norm",
        *(f"blk.{layer}.{kind}_norm" for layer in range(LAYERS) for kind in ("attn", "ffn")),
    ]:
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _byte_symbols() -> list[str]:
    """The printable stand-in of each byte in a byte-level vocabulary, as GPT-2's encoder defines it."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)]
