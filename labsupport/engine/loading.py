"""From a configuration to a runner that has loaded its model; only the library that it needs is imported."""

from __future__ import annotations

from typing import Protocol

from labsupport.engine.config import EngineConfig
from labsupport.engine.plan import Runner
from labsupport.engine.selection import Selection


class LoadedRunner(Runner, Protocol):
    """A runner on a real device: what it holds there, in bytes, and how long its first step took.

    compute_bytes: what a step needs besides; 0 where the library does not say.
    """

    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    warm_up_seconds: float


def load(config: EngineConfig) -> tuple[LoadedRunner, Selection]:
    """The runner for a configuration, and why it is that one. Raises LabsupportError."""
    if config.checked().is_checkpoint:
        from labsupport.engine.runners import bnb

        return bnb.BnbRunner(config), bnb.selection(config)
    from labsupport.engine.runners import llama, llama_loading

    return llama.LlamaRunner(config), llama_loading.selection(config)
