"""Grade submissions: read, run in the sandbox, judge outside it.

Right means that every submission gets exactly one result with a status that can be trusted. A score is only
there where the student's code was really asked: `absent` and `unreadable` have none, `failed` is the
grader's own failure, and `stopped` says that some of the points missing are no judgement of an answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from labsupport.errors import LabsupportError
from labsupport.grading.exercise import Lab
from labsupport.grading.judge import Verdict, judge
from labsupport.grading.sandbox import require_sandbox
from labsupport.grading.session import StoppedError, interrogate
from labsupport.grading.submission import Submission, UnreadableError, code_cells, read_notebook

GRADED, STOPPED, UNREADABLE, ABSENT, FAILED = "graded", "stopped", "unreadable", "absent", "failed"


@dataclass(frozen=True)
class Result:
    """What became of one submission. `notes` are one line each, for whoever reads the report."""

    submission: Submission
    status: str
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()
    notebook: dict[str, Any] | None = None

    @property
    def student(self) -> str:
        """The name of the student's folder."""
        return self.submission.student

    @property
    def lab(self) -> Lab:
        """The lab handed in."""
        return self.submission.lab

    @property
    def earned(self) -> int | None:
        """Points earned; `None` where nothing was judged."""
        return sum(verdict.earned for verdict in self.verdicts) if self.verdicts else None


def draw_seed() -> int:
    """A seed that nobody knew before."""
    return secrets.randbits(32)


def grade_all(
    submissions: Sequence[Submission], *, seed: int, told: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """Grade every submission on the inputs drawn for `seed`, telling `told` of each as it is done.

    Raises `SandboxUnavailableError` before anything is run where there is no sandbox.
    """
    require_sandbox()
    results = []
    for submission in submissions:
        result = grade(submission, seed=seed)
        told(result)
        results.append(result)
    return results


def grade(submission: Submission, *, seed: int) -> Result:
    """Grade one submission; whatever it contains, this returns a result."""
    if submission.path is None:
        return Result(submission, ABSENT, notes=(submission.lack,))
    try:
        notebook = read_notebook(submission.path)
        cells = code_cells(notebook)
    except UnreadableError as error:
        return Result(submission, UNREADABLE, notes=(f"{submission.path.name} cannot be graded: {error}.",))
    try:
        outcome = interrogate(submission.lab, cells, seed)
    except (StoppedError, OSError, LabsupportError) as error:
        return Result(submission, FAILED, notes=(f"The grader itself failed, grade again: {error}.",))
    verdicts = tuple(judge(exercise, outcome.replies[exercise.name]) for exercise in submission.lab.exercises)
    status = STOPPED if any(verdict.outcome == "stopped" for verdict in verdicts) else GRADED
    return Result(submission, status, verdicts, tuple(outcome.incidents), notebook)
