"""How a call of the student's function can end, in a notebook and in the sandbox alike."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from labsupport.grading.exercise import Case, Exercise


@dataclass(frozen=True)
class Returned:
    """Plain data came back."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """The function raised: the class's name, its text, and where (a line of the student's code, if known)."""

    exception: str
    text: str
    where: str = ""


@dataclass(frozen=True)
class NotPlain:
    """The function returned something that is not plain data; `found` says what."""

    found: str


@dataclass(frozen=True)
class Missing:
    """There is no function of that name."""


@dataclass(frozen=True)
class Stopped:
    """The call did not end by itself; `why` says what stopped it."""

    why: str


Reply = Returned | Raised | NotPlain | Missing | Stopped


@dataclass(frozen=True)
class Asked:
    """A case, and how the student's function replied to it."""

    case: Case
    reply: Reply


def drawn(exercise: Exercise, seed: int) -> list[Case]:
    """The cases of `exercise` for `seed`; exercises of the same lab draw independently of each other."""
    return exercise.draw(random.Random(f"{exercise.name}:{seed}"))
