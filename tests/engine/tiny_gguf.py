"""A real GGUF model, small enough to be made in a test: a Llama with random weights and a byte-level
vocabulary.

Every byte is a token of its own, so any text can be generated and an emoji always spans several tokens. The
weights are seeded; with another seed it is another model.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, FEED_FORWARD, CONTEXT = 64, 2, 4, 2, 32, 128, 512
END = 256
VOCABULARY = 258


def byte_symbols() -> list[str]:
    """The printable stand-in of each byte in a byte-level vocabulary, as GPT-2's encoder defines it."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)]


def write_tiny_gguf(path: Path, *, seed: int = 0, scale: float = 0.3) -> Path:
    """Write the model; the larger `scale`, the spread of its weights, the surer it is of its next token."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*byte_symbols(), "<|end|>", "<|pad|>"])
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 2)
    writer.add_token_merges(["z z"])  # llama.cpp wants the list to be there; "zz" is no token
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(VOCABULARY - 1)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.normal(0, scale, shape).astype(np.float16))

    add("token_embd.weight", VOCABULARY, HIDDEN)
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, dtype=np.float32))
    add("output.weight", VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", np.ones(HIDDEN, dtype=np.float32))
        writer.add_tensor(f"blk.{layer}.ffn_norm.weight", np.ones(HIDDEN, dtype=np.float32))
        add(f"blk.{layer}.attn_q.weight", HEADS * HEAD, HIDDEN)
        add(f"blk.{layer}.attn_k.weight", KV_HEADS * HEAD, HIDDEN)
        add(f"blk.{layer}.attn_v.weight", KV_HEADS * HEAD, HIDDEN)
        add(f"blk.{layer}.attn_output.weight", HIDDEN, HEADS * HEAD)
        add(f"blk.{layer}.ffn_gate.weight", FEED_FORWARD, HIDDEN)
        add(f"blk.{layer}.ffn_up.weight", FEED_FORWARD, HIDDEN)
        add(f"blk.{layer}.ffn_down.weight", HIDDEN, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
