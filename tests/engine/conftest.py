"""Models for the engine's tests, each made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_gguf import RECITED, write_random, write_reciting


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in f16."""
    return write_random(tmp_path_factory.mktemp("models") / "tiny-f16.gguf")


@pytest.fixture(scope="session")
def quantized_model(tiny_model: Path) -> Path:
    """The same in Q4_K_M, by llama.cpp's own quantizer."""
    import llama_cpp

    path = tiny_model.with_name("tiny-q4_k_m.gguf")
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    params.nthread = 1
    assert llama_cpp.llama_model_quantize(os.fsencode(tiny_model), os.fsencode(path), params) == 0
    return path


@pytest.fixture(scope="session")
def reciting_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose text is known: `RECITED`, for ever."""
    return write_reciting(tmp_path_factory.mktemp("models") / "reciting.gguf", RECITED)
