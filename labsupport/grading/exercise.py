"""What an exercise is to the grader: inputs drawn from a seed, a reference, and the mistakes people make.

A mistake is not a pattern in the student's text. It is the reference with one thing changed: the function
that somebody who makes that mistake would write. When a student's answers equal that function's answers, the
message is known to fit, and two mistakes made at once are recognised by changing two things.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any


def whole(value: Any) -> Any:
    """The view of a part that looks at the whole answer."""
    return value


@dataclass(frozen=True)
class Case:
    """One call: its arguments (plain data or files) and the names of the parts it counts for."""

    arguments: tuple[Any, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A share of an exercise's points, earned when every case that counts for it is right.

    `view` cuts out of an answer what this part looks at.
    """

    name: str
    points: int
    view: Callable[[Any], Any] = whole


@dataclass(frozen=True)
class Mistake:
    """A wrong idea: `solve` with these `switches` gives the answers that follow from it; `says` teaches."""

    name: str
    says: str
    switches: Mapping[str, Any]


@dataclass(frozen=True)
class Stumble:
    """A wrong idea that shows as an exception: its class's name, and what its text contains."""

    name: str
    says: str
    exceptions: tuple[str, ...]
    contains: str = ""


@dataclass(frozen=True)
class Exercise:
    """One function for the student to write.

    `solve(*arguments, **switches)` is the reference; files arrive there as `File`, `Directory` or `Bundled`.
    `draw(random)` gives the cases, each part at least once.
    """

    name: str
    title: str
    parts: tuple[Part, ...]
    draw: Callable[[random.Random], list[Case]]
    solve: Callable[..., Any]
    mistakes: tuple[Mistake, ...]
    stumbles: tuple[Stumble, ...] = ()

    @property
    def points(self) -> int:
        """The points of all parts together."""
        return sum(part.points for part in self.parts)


@dataclass(frozen=True)
class Limits:
    """What one submission may use: seconds of wall clock and processor, bytes of memory, disk and output."""

    seconds_per_cell: float = 10.0
    seconds_per_call: float = 5.0
    seconds_total: float = 90.0
    memory_bytes: int = 2 * 2**30
    disk_bytes: int = 64 * 2**20
    printed_bytes: int = 16 * 2**20


@dataclass(frozen=True)
class Lab:
    """A numbered notebook of exercises; `hides` names the rooms of this package that would give answers
    away.
    """

    name: str
    notebook: str
    exercises: tuple[Exercise, ...]
    hides: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def points(self) -> int:
        """The points of all exercises together."""
        return sum(exercise.points for exercise in self.exercises)

    def exercise(self, name: str) -> Exercise | None:
        """The exercise called `name`, if this lab has it."""
        return next((exercise for exercise in self.exercises if exercise.name == name), None)

    def source(self, labs: Path) -> Path:
        """The file with text, solutions and checks from which the student's notebook is made."""
        return labs / "src" / f"{Path(self.notebook).stem}.py"


def switches(**changed: Any) -> Mapping[str, Any]:
    """What a mistake changes in the reference."""
    return MappingProxyType(changed)
