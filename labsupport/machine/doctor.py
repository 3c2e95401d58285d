"""The doctor: small checks, each of which says what it found and, where something is wrong, what mends it.

Right means: a check that fails names a remedy that can be pasted; what the course can do without is a note
and no failure; and a check that itself breaks is a failure that says so, not the end of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from labsupport.errors import LabsupportError

State = Literal["ok", "note", "fail"]


@dataclass(frozen=True)
class Finding:
    """What one check found. Anything but "ok" needs a remedy."""

    check: str
    state: State
    detail: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.state != "ok" and not self.remedy:
            raise ValueError(f"the check {self.check!r} is {self.state!r} and names no remedy")


@dataclass(frozen=True)
class Check:
    """A question about this computer: its name, and a function that answers it."""

    name: str
    ask: Callable[[], Finding]


def examine(checks: Iterable[Check]) -> Iterator[Finding]:
    """Answer every check, in order, one at a time, so that a reader sees each as soon as it is known."""
    for check in checks:
        try:
            yield check.ask()
        except LabsupportError as error:
            yield Finding(check.name, "fail", error.problem, error.remedy or error.allowed or REPAIR)
        except Exception as error:
            yield Finding(
                check.name, "fail", f"the check itself broke: {type(error).__name__}: {error}", REPAIR
            )


REPAIR = "run `make setup` again; it puts back whatever is missing in .venv"
