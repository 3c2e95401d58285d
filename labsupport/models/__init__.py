"""Where weights come from: the catalogue, the cache, and whatever has to be made to serve a model.

`path(name, quant)` is the one question that the other rooms ask; `checkpoint(name)` gives the Hugging Face
layout that transformers reads, and `vocabulary(name)` its tokenizer alone. All make what is missing: pull,
convert, quantize.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labsupport.models.store import QUANTS, checkpoint, path, vocabulary

__all__ = ["QUANTS", "checkpoint", "path", "vocabulary"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from labsupport.models import store

    return getattr(store, name)
