"""Where a `ModelShape` comes from: a Hugging Face config, a GGUF header, a safetensors header.

The three name the same numbers differently. What a config leaves out has a default in transformers, and it is
taken from there only where every model of that architecture has the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labsupport.anatomy import gguf_header, safetensors_header
from labsupport.anatomy.model_file_error import ModelFileError
from labsupport.anatomy.model_shape import ModelShape
from labsupport.errors import LabsupportError

DENSE = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
EXPERTS = ("mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3")
KNOWN = (*DENSE, *EXPERTS)


def shape_from_config(config: Mapping[str, Any]) -> ModelShape:
    """See `ModelShape.from_config`."""
    if "text_config" in config:  # a multimodal model: its language part
        config = config["text_config"]
    kind = config.get("model_type", "llama")
    if kind not in KNOWN:
        raise LabsupportError(f"The architecture {kind!r} is not known here.", allowed=", ".join(KNOWN))
    hidden, heads = _number(config, "hidden_size"), _number(config, "num_attention_heads")
    bias = bool(config.get("attention_bias", False))
    sizes: dict[str, Any] = {
        "architecture": kind,
        "layers": _number(config, "num_hidden_layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": int(config.get("num_key_value_heads") or heads),
        "head_dim": int(config.get("head_dim") or hidden // heads),
        "ffn": _number(config, "intermediate_size"),
        "vocabulary": _number(config, "vocab_size"),
        "tied_embeddings": bool(config.get("tie_word_embeddings", kind.startswith("gemma"))),
        "context": int(config.get("max_position_embeddings") or 0),
        "qkv_bias": bias or kind == "qwen2",
        "output_bias": bias,
        "mlp_bias": bool(config.get("mlp_bias", False)),
        "qk_norm": kind in ("qwen3", "qwen3_moe", "gemma3_text"),
        "norms_per_layer": 4 if kind in ("gemma2", "gemma3_text") else 2,
    }
    if kind in EXPERTS:
        sizes |= _expert_sizes(kind, config)
    return ModelShape(**sizes)


def _expert_sizes(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "mixtral":
        return {
            "experts": _number(config, "num_local_experts"),
            "experts_per_token": _number(config, "num_experts_per_tok"),
            "expert_ffn": _number(config, "intermediate_size"),
        }
    if kind == "qwen3_moe":
        if config.get("decoder_sparse_step", 1) != 1 or config.get("mlp_only_layers"):
            raise LabsupportError("A qwen3_moe with experts in only some layers is not known here.")
        return {
            "experts": int(config.get("num_experts") or _number(config, "num_local_experts")),
            "experts_per_token": _number(config, "num_experts_per_tok"),
            "expert_ffn": _number(config, "moe_intermediate_size"),
        }
    return {
        "experts": _number(config, "n_routed_experts"),
        "experts_per_token": _number(config, "num_experts_per_tok"),
        "expert_ffn": _number(config, "moe_intermediate_size"),
        "shared_experts": int(config.get("n_shared_experts") or 0),
        "dense_layers": int(config.get("first_k_dense_replace") or 0),
        "kv_lora_rank": _number(config, "kv_lora_rank"),
        "q_lora_rank": int(config.get("q_lora_rank") or 0),
        "head_dim": _number(config, "qk_nope_head_dim"),
        "rope_head_dim": _number(config, "qk_rope_head_dim"),
        "value_head_dim": _number(config, "v_head_dim"),
    }


def _number(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise LabsupportError(
            f"The config says {key} = {value!r}.",
            allowed="a positive whole number",
            remedy="Take the config.json of a decoder-only language model.",
        )
    return value


def shape_from_path(path: Path) -> ModelShape:
    """See `shape_of`."""
    if path.is_dir():
        path = path / "config.json"
    if path.suffix == ".gguf":
        return shape_from_gguf(gguf_header.read(path))
    if path.suffix == ".safetensors":
        beside = path.with_name("config.json")
        if beside.is_file():
            return shape_from_path(beside)
        return shape_from_safetensors(safetensors_header.read(path))
    if not path.is_file():
        raise ModelFileError(path, "there is no such file.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFileError(path, f"it is not valid JSON ({error}).") from None
    if not isinstance(config, dict):
        raise ModelFileError(path, "it is not a JSON object.")
    return ModelShape.from_config(config)


def shape_from_gguf(header: gguf_header.GGUFHeader) -> ModelShape:
    """The shape that a GGUF header describes (dense Llama-like architectures)."""
    kind = header.architecture
    tensors = {tensor.name: tensor for tensor in header.tensors}

    def number(key: str, default: int | None = None) -> int:
        value = header.metadata.get(f"{kind}.{key}", default)
        if type(value) is not int:
            raise ModelFileError(header.path, f"the metadata lacks the whole number {kind}.{key}.")
        return value

    if kind not in ("llama", "qwen2", "qwen3") or number("expert_count", 0):
        raise ModelFileError(
            header.path, f"the shape of {kind!r} is not read from GGUF here, only from its config."
        )
    if "token_embd.weight" not in tensors:
        raise ModelFileError(header.path, "it holds no token embedding (token_embd.weight).")
    heads, hidden = number("attention.head_count"), number("embedding_length")
    return ModelShape(
        architecture=kind,
        layers=number("block_count"),
        hidden=hidden,
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
        head_dim=number("attention.key_length", hidden // heads),
        ffn=number("feed_forward_length"),
        vocabulary=tensors["token_embd.weight"].shape[1],
        tied_embeddings="output.weight" not in tensors,
        context=number("context_length", 0),
        qkv_bias="blk.0.attn_q.bias" in tensors,
        output_bias="blk.0.attn_output.bias" in tensors,
        mlp_bias="blk.0.ffn_down.bias" in tensors,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
    )


def shape_from_safetensors(header: safetensors_header.SafetensorsHeader) -> ModelShape:
    """The shape of a Llama-like checkpoint from its tensors alone, where they give the head's length away."""
    tensors = {tensor.name.removeprefix("model."): tensor.shape for tensor in header.tensors}
    layers = len({name.split(".")[1] for name in tensors if name.startswith("layers.")})
    try:
        vocabulary, hidden = tensors["embed_tokens.weight"]
        ffn = tensors["layers.0.mlp.gate_proj.weight"][0]
        queries = tensors["layers.0.self_attn.q_proj.weight"][0]
        keys = tensors["layers.0.self_attn.k_proj.weight"][0]
    except (KeyError, ValueError):
        raise ModelFileError(header.path, "its tensors are not named as a Llama's are.") from None
    if "layers.0.self_attn.q_norm.weight" not in tensors:
        raise ModelFileError(
            header.path,
            f"{queries} query rows could be any number of heads: the header does not say how long a head is.",
            remedy="Put the model's config.json beside it.",
        )
    (head_dim,) = tensors["layers.0.self_attn.q_norm.weight"]
    return ModelShape(
        architecture="qwen3",
        layers=layers,
        hidden=hidden,
        heads=queries // head_dim,
        kv_heads=keys // head_dim,
        head_dim=head_dim,
        ffn=ffn,
        vocabulary=vocabulary,
        tied_embeddings="lm_head.weight" not in tensors,
        qk_norm=True,
    )
