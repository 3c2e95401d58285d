"""The one kind of error that a reader sees: what was given, what is allowed, and what to do about it."""

from __future__ import annotations


class LabsupportError(Exception):
    """A mistake or a lack that the reader can mend.

    `problem` says what is wrong and what was given; `allowed` what would have been right; `remedy` what to
    do now. The command line prints the three on lines of their own and exits with `exit_status`; the server
    turns the subclasses it knows into HTTP errors.
    """

    exit_status = 1

    def __init__(self, problem: str, *, allowed: str = "", remedy: str = "") -> None:
        self.problem = problem
        self.allowed = allowed
        self.remedy = remedy
        super().__init__(problem, allowed, remedy)

    def __str__(self) -> str:
        lines = [self.problem]
        if self.allowed:
            lines.append(f"Allowed: {self.allowed}")
        if self.remedy:
            lines.append(f"What to do: {self.remedy}")
        return "\n".join(lines)
