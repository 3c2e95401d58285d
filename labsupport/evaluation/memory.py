"""How much of a score could be memory: shared 8-grams, and what the nearest training answer scores.

Right means that the comparison is with all the training text that is handed in, and that a word is what white
space separates, digits and punctuation included.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_FEATURES = 1 << 14


def ngrams(text: str, n: int = 8) -> Iterator[tuple[str, ...]]:
    """Every run of `n` words; of a shorter text the whole of it, once."""
    words = text.split()
    for start in range(max(1, len(words) - n + 1)):
        yield tuple(words[start : start + n])


def shared_ngrams(heldout: Sequence[str], training: Iterable[str], *, n: int = 8) -> float:
    """The share of the held-out n-grams, each counted as often as it occurs, that training has too."""
    wanted = {gram for text in heldout for gram in ngrams(text, n)}
    seen = {gram for text in training for gram in ngrams(text, n) if gram in wanted}
    grams = [gram for text in heldout for gram in ngrams(text, n)]
    return sum(gram in seen for gram in grams) / len(grams)


def nearest_answers(
    prompts: Sequence[str], training_prompts: Sequence[str], training_answers: Sequence[str]
) -> list[str]:
    """For each prompt the answer of the training prompt most like it (cosine of TF-IDF-weighted words)."""
    training = _counts(training_prompts)
    inverse_frequency = np.log(len(training_prompts) / (1 + (training > 0).sum(axis=0)) + 1)
    known = _unit(training * inverse_frequency)
    asked = _unit(_counts(prompts) * inverse_frequency)
    return [training_answers[int(i)] for i in np.argmax(asked @ known.T, axis=1)]


def _counts(texts: Sequence[str]) -> NDArray[np.float32]:
    counts = np.zeros((len(texts), _FEATURES), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            counts[row, zlib.crc32(word.strip(".,;:?!").encode()) % _FEATURES] += 1
    return counts


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (rows / np.maximum(lengths, 1e-9)).astype(np.float32)
    return unit
