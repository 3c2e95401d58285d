"""Ask llama.cpp directly, without the course's engine: tokens and logits of a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np


@contextmanager
def opened(path: Path, *, vocabulary_only: bool = False) -> Iterator[llama_cpp.Llama]:
    """The model at `path`, closed afterwards."""
    model = llama_cpp.Llama(
        str(path), n_ctx=512, n_threads=1, logits_all=True, verbose=False, vocab_only=vocabulary_only
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
