"""What this computer is and can do: detect it, measure it, check it, and put it on one page.

    from labsupport.machine import datasheet

Right means: a limit set from outside (a container, a CPU mask) counts as the computer's own, a measurement
says how much it scattered, and nothing here imports torch before a check or a measurement needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labsupport.machine.sheet import datasheet

__all__ = ["datasheet"]


def __getattr__(name: str) -> Any:
    if name == "datasheet":
        from labsupport.machine.sheet import datasheet

        return datasheet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
