"""The shape of a decoder-only transformer: the dozen numbers that its whole arithmetic follows from.

`ModelShape.from_config` reads a Hugging Face `config.json`; `shape_of` reads that, a GGUF header or a
safetensors header, whichever a path holds. Right means: `parameters(shape)` equals the number of weights
that the real model has, which the tests check against transformers for each architecture named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """How large each part of a model is. Numbers are counts; `head_dim` and `hidden` count vector elements.

    `heads` query heads share `kv_heads` key and value heads: equal is multi-head attention, one is
    multi-query, between them grouped-query. `head_dim` need not be `hidden / heads`. `ffn` is the width of
    one MLP. With `experts` > 0 the MLP is a mixture of that many, `expert_ffn` wide, of which a token
    visits `experts_per_token` and all `shared_experts`; the first `dense_layers` keep an ordinary MLP. With
    `kv_lora_rank` > 0 attention is multi-head latent (MLA): a token's cache is one vector of that rank and
    one rotary key of `rope_head_dim`; `head_dim` is then the part of a head without rotation.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    tied_embeddings: bool = False
    context: int = 0
    architecture: str = "llama"
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norms_per_layer: int = 2
    experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int = 0
    shared_experts: int = 0
    dense_layers: int = 0
    kv_lora_rank: int = 0
    q_lora_rank: int = 0
    rope_head_dim: int = 0
    value_head_dim: int = 0

    @property
    def attention(self) -> str:
        """The field's word for how heads share keys and values: MHA, GQA, MQA or MLA."""
        if self.kv_lora_rank:
            return "MLA"
        if self.kv_heads == self.heads:
            return "MHA"
        return "MQA" if self.kv_heads == 1 else "GQA"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """The shape that a Hugging Face `config.json` describes.

        Raises `LabsupportError` for an architecture that is not known here or a config that lacks a number.
        """
        from labsupport.anatomy.shape_sources import shape_from_config

        return shape_from_config(config)


def shape_of(path: str | Path) -> ModelShape:
    """The shape of the model at `path`: a `config.json`, a directory with one, a GGUF or a safetensors file.

    A safetensors header alone does not say how many heads there are unless the model normalizes queries and
    keys; put the config beside it, or get a `LabsupportError` that says so.
    """
    from labsupport.anatomy.shape_sources import shape_from_path

    return shape_from_path(Path(path))
