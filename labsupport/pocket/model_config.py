"""The shape of the pocket model: a Llama small enough to train on two CPU cores and to ship here."""

from __future__ import annotations

from typing import Any

CONTEXT_TOKENS = 2048


def llama_config(vocabulary_size: int) -> Any:
    """A `transformers.LlamaConfig`: grouped-query attention (4 query heads, 2 KV heads), tied embeddings."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT_TOKENS,
        rms_norm_eps=1e-5,
        rope_theta=10_000_000.0,
        initializer_range=0.0625,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        dtype="bfloat16",
    )
