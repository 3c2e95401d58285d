"""The part of grading that goes into the sandbox with the student's code, and nothing else does.

Inside, this folder is mounted in the place of `labsupport.grading`, so a notebook's own
`from labsupport.grading import check` finds a `check` that does nothing: judging happens outside, where no
student code can reach.
"""

from __future__ import annotations


def check(name: str) -> None:
    """Accept the call that every lab makes, and do nothing: the grader asks its own questions."""
