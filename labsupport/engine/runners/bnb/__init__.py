"""The bnb runner: transformers and bitsandbytes over a cache of slots. Importing it imports torch."""

from __future__ import annotations

from labsupport.engine.runners.bnb.runner import BnbRunner, selection

__all__ = ["BnbRunner", "selection"]
