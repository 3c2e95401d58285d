"""Instant checks in the notebook, and grading in a sandbox.

`check("name")` judges the function of that name in the notebook that calls it. The same judge scores
submissions, on inputs drawn at grading time, from plain data that a sandbox sends back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labsupport.grading.instant_check import check

__all__ = ["check"]


def __getattr__(name: str) -> Any:
    if name == "check":
        from labsupport.grading.instant_check import check

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
