"""Exact match: an answer counts only if it is the expected text, letter for letter.

Right means that nothing is forgiven but white space at the two ends, and that the figure comes with the
interval which a sample of its size allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

from labsupport.errors import LabsupportError

Answerer = Callable[[Sequence[str]], list[str]]
"""Takes users' messages, gives the assistant's answers in the same order."""


@dataclass(frozen=True)
class Miss:
    """A wrong answer, to be read by somebody who wants to know why."""

    prompt: str
    expected: str
    given: str


@dataclass(frozen=True)
class ExactMatch:
    """`right` of `asked` answers were exact."""

    asked: int
    right: int
    misses: tuple[Miss, ...]

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.right / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        """The Wilson score interval at 95 % (Wilson 1927, J. Am. Stat. Assoc. 22:209–212)."""
        z, n, p = 1.96, self.asked, self.share
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)


def exact_match(answerer: Answerer, prompts: Sequence[str], expected: Sequence[str]) -> ExactMatch:
    """Ask every prompt and compare. Raises LabsupportError where prompts or answers are missing."""
    if not prompts or len(prompts) != len(expected):
        raise LabsupportError(
            f"{len(prompts)} prompts and {len(expected)} expected answers cannot be compared.",
            allowed="at least one prompt, and one expected answer for each",
        )
    answers = answerer(prompts)
    if len(answers) != len(prompts):
        raise LabsupportError(f"{len(prompts)} prompts got {len(answers)} answers.")
    misses = tuple(
        Miss(prompt, wanted, given)
        for prompt, wanted, given in zip(prompts, expected, answers, strict=True)
        if given.strip() != wanted.strip()
    )
    return ExactMatch(len(prompts), len(prompts) - len(misses), misses)
