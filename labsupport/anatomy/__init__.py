"""The arithmetic of a model: parameters, bytes, FLOPs and KV-cache bytes from its shape alone.

Nothing here loads weights or imports torch: a shape comes from a Hugging Face `config.json`, a GGUF header or
a safetensors header, and everything else is multiplication that a reader can redo by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labsupport.anatomy.arithmetic import (
        decode_seconds_lower_bound,
        fit,
        flops_per_token,
        kv_bytes_per_token,
        parameters,
        weight_bytes,
    )
    from labsupport.anatomy.model_shape import ModelShape, shape_of
    from labsupport.anatomy.spec_sheets import hardware, model_sheet

_HOMES = {
    "ModelShape": "model_shape",
    "shape_of": "model_shape",
    "parameters": "arithmetic",
    "weight_bytes": "arithmetic",
    "kv_bytes_per_token": "arithmetic",
    "flops_per_token": "arithmetic",
    "decode_seconds_lower_bound": "arithmetic",
    "fit": "arithmetic",
    "hardware": "spec_sheets",
    "model_sheet": "spec_sheets",
}

__all__ = [
    "ModelShape",
    "decode_seconds_lower_bound",
    "fit",
    "flops_per_token",
    "hardware",
    "kv_bytes_per_token",
    "model_sheet",
    "parameters",
    "shape_of",
    "weight_bytes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
