"""The parameter arithmetic equals what transformers builds, architecture by architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from labsupport.anatomy import ModelShape, model_sheet, parameters
from labsupport.errors import LabsupportError

SMALL: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "pad_token_id": 0,
}
LATENT = {
    "num_key_value_heads": 6,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 12,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
}
CASES = {
    "llama": {"tie_word_embeddings": False},
    "llama, biased, tied, wide heads": {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
        "head_dim": 16,
    },
    "mistral": {"tie_word_embeddings": False},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 16, "tie_word_embeddings": True},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": False},
    "qwen3_moe": {
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "tie_word_embeddings": False,
    },
    "deepseek_v2": {**LATENT, "q_lora_rank": None, "tie_word_embeddings": False},
    "deepseek_v3": {**LATENT, "q_lora_rank": 16, "tie_word_embeddings": False},
}


def built(config: dict[str, Any]) -> torch.nn.Module:
    options = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **options))


@pytest.mark.parametrize("case", CASES)
def test_total_equals_the_model_that_transformers_builds(case: str) -> None:
    config = {**SMALL, "model_type": case, **CASES[case]}
    model = built(config)
    weights = sum(tensor.numel() for tensor in model.parameters())
    balancing = sum(b.numel() for name, b in model.named_buffers() if "e_score_correction" in name)

    assert parameters(ModelShape.from_config(config)).total == weights + balancing


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.2-1b", "qwen3-0.6b"])
def test_every_component_of_a_published_shape_equals_the_model(name: str) -> None:
    sheet = model_sheet(name)
    model = built({**sheet.config, "pad_token_id": 0})
    counts = parameters(sheet.shape)

    def counted(*fragments: str) -> int:
        return sum(t.numel() for n, t in model.named_parameters() if any(each in n for each in fragments))

    assert counts.embedding == counted("embed_tokens")
    assert counts.attention_q == counted("q_proj")
    assert counts.attention_k == counted("k_proj")
    assert counts.attention_v == counted("v_proj")
    assert counts.attention_o == counted("o_proj")
    assert counts.mlp == counted("mlp.")
    assert counts.norms == counted("norm")
    assert counts.head == counted("lm_head")
    assert counts.total == sum(t.numel() for t in model.parameters())


def test_a_default_of_the_config_class_is_the_default_here() -> None:
    """A config.json may leave out what its class knows: the number of KV heads, the head's length, tying."""
    given = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
    given |= {"model_type": "llama"}
    assert parameters(ModelShape.from_config(given)).total == sum(
        p.numel() for p in built(given).parameters()
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": None}, "hidden_size = None"),
        ({"num_hidden_layers": -1}, "num_hidden_layers = -1"),
        ({"vocab_size": "many"}, "vocab_size = 'many'"),
        ({"model_type": "mamba"}, "'mamba' is not known"),
    ],
)
def test_a_config_that_is_no_such_model_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(LabsupportError, match=said):
        ModelShape.from_config({**SMALL, "model_type": "llama", **change})
