"""Measure the pocket model on held-out samples.

Right means: every figure of the card comes out of `evaluation.json` beside the weights, that file names the
seed and the number of samples, and anybody can repeat it with `labsupport models evaluate pocket`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labsupport.errors import LabsupportError
from labsupport.evaluation.exact_match import Answerer, ExactMatch, exact_match
from labsupport.pocket.sample import Sample
from labsupport.pocket.skills import samples as draw

QUANTS = ("bf16", "q8_0", "q4_k_m", "q2_k")
WEIGHTS = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class Exercise:
    """One line of the evaluation: a skill at one difficulty, and what it is meant to reach at bf16."""

    name: str
    skill: str
    target: float
    options: dict[str, Any] = field(default_factory=dict)

    def samples(self, *, seed: int, count: int) -> list[Sample]:
        """Held-out samples."""
        return draw(self.skill, split="heldout", seed=seed, count=count, **self.options)


EXERCISES = (
    Exercise("summarize", "summarize", 0.98),
    Exercise("recall-16", "recall", 0.98, {"pairs": 16}),
    Exercise("recall-64", "recall", 0.90, {"pairs": 64}),
    Exercise("glossary", "glossary", 0.98, {"phrasing": "trained"}),
    Exercise("glossary-unseen", "glossary", 0.90, {"phrasing": "unseen"}),
    Exercise("size", "size", 0.95),
)


def results(
    answerer: Answerer, *, seed: int, samples: int, exercises: tuple[Exercise, ...] = EXERCISES
) -> Iterator[tuple[Exercise, ExactMatch]]:
    """Exact match, exercise after exercise, so that a caller can show progress."""
    for exercise in exercises:
        drawn = exercise.samples(seed=seed, count=samples)
        yield exercise, exact_match(answerer, [s.prompt for s in drawn], [s.answer for s in drawn])


def evaluate(
    quant: str = "bf16", *, seed: int = 0, samples: int = 500, folder: Path = WEIGHTS
) -> dict[str, Any]:
    """Exact match per exercise of the model in `folder` at one quantization, as plain data.

    bf16 is the checkpoint through transformers (arithmetic in float32); the others are GGUF files through the
    course's engine. Raises LabsupportError for another quantization or fewer than one sample.
    """
    if quant not in QUANTS:
        raise LabsupportError(f"There is no quantization {quant!r}.", allowed=", ".join(QUANTS))
    if samples < 1:
        raise LabsupportError(f"{samples} samples were asked for.", allowed="1 or more")
    found = results(_answerer(folder, quant), seed=seed, samples=samples)
    return {
        "model": "pocket",
        "quant": quant,
        "seed": seed,
        "samples": samples,
        "exact_match": {exercise.name: _figures(match) for exercise, match in found},
    }


def _figures(match: ExactMatch) -> dict[str, Any]:
    low, high = match.interval
    return {"share": match.share, "right": match.right, "interval_95": [round(low, 4), round(high, 4)]}


def _answerer(folder: Path, quant: str) -> Answerer:
    from labsupport.evaluation import answerers
    from labsupport.models import path

    if quant == "bf16":
        return answerers.checkpoint_answerer(folder)
    return answerers.gguf_answerer(path(str(folder), quant), folder)
