"""Real Hugging Face checkpoints, small enough to be made in a test, with a byte-level vocabulary.

Every byte is a token of its own, as in `tiny_gguf`; the two tokens after them are an end and a padding token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

END, PADDING, VOCABULARY = 256, 257, 258
CONTEXT = 256

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,  # a wide spread, so that the best token is well ahead of the second
    "bos_token_id": None,
    "eos_token_id": END,
    "pad_token_id": PADDING,
}


def write_llama(folder: Path, *, seed: int = 0, **shape: Any) -> Path:
    """A Llama of random weights in fp32; `shape` are fields of its config."""
    torch.manual_seed(seed)
    return _write(folder, LlamaForCausalLM(LlamaConfig(**(_SHAPE | shape))))


def write_qwen3(folder: Path, *, seed: int = 0, **shape: Any) -> Path:
    """A Qwen3 of random weights: another architecture, with norms on queries and keys."""
    torch.manual_seed(seed)
    return _write(folder, Qwen3ForCausalLM(Qwen3Config(**(_SHAPE | {"head_dim": 32} | shape))))


def _write(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    symbols = sorted(_byte_symbols().items())
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={symbol: byte for byte, symbol in symbols}, merges=[])
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>", "<|pad|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _byte_symbols() -> dict[int, str]:
    """The printable stand-in of each byte in a byte-level vocabulary, as GPT-2's encoder defines it."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)}
