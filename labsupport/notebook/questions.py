"""Check yourself: a question whose every option says why it is right or wrong.

Each option is a disclosure (`<details>`), so a question works by keyboard (Tab to an option, Enter or Space
to choose it), with a screen reader, and without a running kernel. The questions stand in `questions.toml`
beside the lessons, so that a cell does not show the answer above its question. Right means that a wrong
choice teaches as much as the right one: an option without a reason is refused.
"""

from __future__ import annotations

import html
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from labsupport.errors import LabsupportError

FEWEST_REASON_WORDS = 5


class QuizError(LabsupportError):
    """A question that would not teach."""


@dataclass(frozen=True)
class Option:
    """One answer to choose, whether it is right, and the reason."""

    text: str
    is_right: bool
    because: str


def marked_up(text: str) -> str:
    """Escaped text with `code`, *emphasis* and [links](target) of markdown."""
    escaped = html.escape(text)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    escaped = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", escaped)
    return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", r'<a href="\2">\1</a>', escaped)


@dataclass(frozen=True)
class Quiz:
    """One question with its options, ready to be shown."""

    question: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        texts = [option.text for option in self.options]
        if len(texts) < 2 or len(set(texts)) < len(texts):
            raise QuizError(f"the options {texts}", allowed="at least two options, all different")
        if sum(option.is_right for option in self.options) != 1:
            raise QuizError(
                f"no single right option among {texts}", allowed="exactly one option with right = true"
            )
        for option in self.options:
            if len(option.because.split()) < FEWEST_REASON_WORDS:
                raise QuizError(
                    f"option {option.text!r} says because={option.because!r}",
                    allowed="a sentence that explains the option, right or wrong",
                )

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        return {"text/html": self.html(), "text/plain": self.plain()}

    def html(self) -> str:
        """The question as a group of disclosures."""
        disclosures = "".join(
            '<details style="margin: 0.4em 0;">'
            f'<summary style="cursor: pointer;">{marked_up(option.text)}</summary>'
            f'<p style="margin: 0.3em 0 0.6em 1.2em;">'
            f"<strong>{'✓ Right.' if option.is_right else '✗ No.'}</strong> {marked_up(option.because)}</p>"
            "</details>"
            for option in self.options
        )
        return (
            f'<div role="group" aria-label="Question"><p><strong>{marked_up(self.question)}</strong></p>'
            f"{disclosures}<p><small>Choose an answer with a click, or with Tab and Enter.</small></p></div>"
        )

    def plain(self) -> str:
        """The question and its options, without giving the answer away."""
        return "\n".join([self.question, *(f"  - {option.text}" for option in self.options)])


def read_questions(path: Path) -> dict[str, Quiz]:
    """Every question of a `questions.toml`, by name. Raises `QuizError` for one that would not teach."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise QuizError(
            f"the questions in {path} cannot be read: {error}",
            remedy="open the notebook where it lies, in the folder `lessons`",
        ) from error
    found = {}
    for name, table in tables.items():
        try:
            options = tuple(
                Option(str(option["text"]), bool(option.get("right", False)), str(option["because"]))
                for option in table["options"]
            )
            found[name] = Quiz(str(table["question"]), options)
        except (KeyError, TypeError) as error:
            raise QuizError(
                f"question {name!r} in {path} lacks {error}",
                allowed="question, and options with text, because, and right = true for one of them",
            ) from error
    return found


def quiz(name: str, *, folder: Path | None = None) -> Quiz:
    """The question of that name, to show as the last value of a cell.

    It is read from `questions.toml` in `folder`, by default the one the notebook runs in.
    """
    questions = read_questions((folder or Path.cwd()) / "questions.toml")
    if name not in questions:
        raise QuizError(f"there is no question {name!r}", allowed=", ".join(questions))
    return questions[name]
