"""The list of labs that can be checked and graded."""

from __future__ import annotations

from functools import cache

from labsupport.grading.exercise import Exercise, Lab
from labsupport.grading.exercises import (
    parameter_count,
    quantized_bytes,
    release_review,
    safetensors_header,
)

LABS = (
    Lab(
        name="lab01",
        notebook="lab01_weights.ipynb",
        exercises=(
            safetensors_header.EXERCISE,
            parameter_count.EXERCISE,
            quantized_bytes.EXERCISE,
            release_review.EXERCISE,
        ),
        hides=("anatomy",),
    ),
)


@cache
def exercises() -> dict[str, Exercise]:
    """Every exercise by its name; names are unique across labs."""
    return {exercise.name: exercise for lab in LABS for exercise in lab.exercises}
