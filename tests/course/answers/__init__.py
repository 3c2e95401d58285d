"""Right and wrong answers to every exercise: list them here, and the four proofs of a grader follow for free.

One module per lab (`lab01.py`, …) with `ANSWERS: dict[str, Answers]`, one entry per exercise. Write each
answer as a student would. `blind` is for wrong answers by somebody who has read the exercise, but not its
checker; they are held to the same standard: refused as a mistake that was recognised, in words that they
name in `says`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wrong:
    """A plausible wrong answer, and what the student must be told: names of mistakes, or words of the
    message.
    """

    function: Callable[..., Any]
    mistakes: tuple[str, ...] = ()
    says: str = ""


@dataclass(frozen=True)
class Answers:
    """`right`: answers written in other ways than the reference. `wrong` and `blind`: see above."""

    right: tuple[Callable[..., Any], ...]
    wrong: tuple[Wrong, ...]
    blind: tuple[Wrong, ...] = ()
