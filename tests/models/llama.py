"""Ask llama.cpp directly, without the course's engine: tokens and logits of a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np


def in_f32(source: Path, target: Path) -> Path:
    """A copy of a 16-bit GGUF file with every weight in float32, for comparisons without rounding."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = llama_cpp.LLAMA_FTYPE_ALL_F32, 1
    assert llama_cpp.llama_model_quantize(bytes(source), bytes(target), params) == 0
    return target


@contextmanager
def opened(path: Path, *, vocabulary_only: bool = False) -> Iterator[llama_cpp.Llama]:
    """The model at `path` with a KV cache of float32, closed afterwards."""
    model = llama_cpp.Llama(
        str(path),
        n_ctx=512,
        n_threads=1,
        logits_all=True,
        verbose=False,
        vocab_only=vocabulary_only,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
    )
    try:
        yield model
    finally:
        model.close()


def logits(model: llama_cpp.Llama, tokens: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[tokens, vocabulary] logits of a prompt."""
    model.reset()
    model.eval(tokens)
    return np.array(model.scores[: len(tokens)])
