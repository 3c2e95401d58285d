"""The engine takes its answer about GPUs from where set-up and doctor take theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from labsupport.engine.config import EngineConfig
from labsupport.engine.runners import llama_loading


@pytest.mark.parametrize(("node", "seen"), [("nvidiactl", False), ("nvidia0", True)])
def test_a_driver_without_a_gpu_is_no_gpu_to_the_engine(no_gpu: Path, node: str, seen: bool) -> None:
    (no_gpu / "dev" / node).touch()

    chosen = llama_loading.selection(EngineConfig(model="any.gguf"))

    assert ("NVIDIA GPU" in chosen.reason) == seen
