"""`check("name")`: the answer that a student gets in the cell below the exercise.

It calls the student's own function on inputs that are always the same, so that the message stays put until
the code changes; grading draws others. It shows the points of each part and one message.
"""

from __future__ import annotations

import html
import os
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from labsupport.errors import LabsupportError
from labsupport.grading.exercise import Case, Exercise
from labsupport.grading.inside.plain import NotPlainError, as_plain, from_wire, to_wire
from labsupport.grading.judge import Verdict, judge
from labsupport.grading.labs import exercises
from labsupport.grading.replies import Asked, Missing, NotPlain, Raised, Reply, Returned, drawn

NOTEBOOK_SEED = 0
GREEN, AMBER = "#1b7837", "#b35806"  # told apart by colour-blind readers; the words say the same


class CheckFailedError(Exception):
    """Raised only where nbgrader validates a notebook, which looks for errors and not for messages."""


class Shown:
    """A verdict as a notebook shows it: HTML in a browser, plain text elsewhere."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict

    def __repr__(self) -> str:
        lines = [
            f"{self.verdict.exercise}: {self.verdict.outcome}, {_points(self.verdict)}",
            self.verdict.message,
        ]
        lines += [
            f"  {'✓' if part.earned else '·'} {part.name}: {part.earned}/{part.points}"
            for part in self.verdict.parts
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return as_html(self.verdict)


def check(name: str) -> Shown:
    """Judge the function `name` of the calling notebook; the last line of a cell shows the result.

    Raises `LabsupportError` if there is no exercise of that name, `CheckFailedError` under `nbgrader
    validate`.
    """
    exercise = exercises().get(name)
    if exercise is None:
        raise LabsupportError(f"There is no exercise {name!r}.", allowed=", ".join(sorted(exercises())))
    caller: FrameType = sys._getframe(1)
    verdict = judge(exercise, ask(exercise, caller.f_globals.get(name)))
    if verdict.earned < verdict.points and os.environ.get("NBGRADER_EXECUTION") == "validate":
        raise CheckFailedError(verdict.message)
    return Shown(verdict)


def ask(exercise: Exercise, function: Any, seed: int = NOTEBOOK_SEED) -> list[Asked]:
    """Call `function` on every case drawn for `seed`, in this process."""
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        return [
            Asked(case, call(function, case, Path(folder) / str(number)))
            for number, case in enumerate(drawn(exercise, seed))
        ]


def call(function: Any, case: Case, folder: Path) -> Reply:
    """One call in this process, however it ends."""
    if not callable(function):
        return Missing()
    try:
        arguments = [
            from_wire(to_wire(argument), folder / str(place)) for place, argument in enumerate(case.arguments)
        ]
        returned = function(*arguments)
    except Exception as error:
        return Raised(type(error).__name__, _first_line(error), _line(error))
    try:
        return Returned(as_plain(returned))
    except NotPlainError as error:
        return NotPlain(str(error))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _line(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)[1:]
    return f", at line {frames[0].lineno} of the cell" if frames and frames[0].lineno else ""


def _points(verdict: Verdict) -> str:
    return f"{verdict.earned} of {verdict.points} point{'' if verdict.points == 1 else 's'}"


def as_html(verdict: Verdict) -> str:
    """The verdict as a small box: outcome and points, the message, and a line for each part."""
    colour = GREEN if verdict.outcome == "right" else AMBER
    parts = "".join(
        f"<li>{'✓' if part.earned else '○'} {html.escape(part.name)}: {part.earned} of {part.points}</li>"
        for part in verdict.parts
    )
    return (
        f'<div role="status" style="border-left:4px solid {colour};padding:.4em .8em;max-width:46em">'
        f'<strong style="color:{colour}">{html.escape(verdict.outcome.capitalize())}</strong>'
        f" · <code>{html.escape(verdict.exercise)}</code> · {_points(verdict)}"
        f'<p style="margin:.4em 0">{with_code(verdict.message)}</p>'
        f'<ul style="margin:.2em 0;padding-left:.4em;list-style:none">{parts}</ul></div>'
    )


def with_code(message: str) -> str:
    """HTML of a message, everything escaped; what stands between backquotes becomes code, between stars
    stress.
    """
    pieces = []
    for place, piece in enumerate(html.escape(message).split("`")):
        if place % 2:
            pieces.append(f"<code>{piece}</code>")
        else:
            starred = piece.split("*")
            pieces.append(
                "".join(f"<em>{text}</em>" if odd % 2 else text for odd, text in enumerate(starred))
            )
    return "".join(pieces).replace("\n", "<br>")
