"""The working parts of *Under the Endpoint*: every module a lesson, a lab or the server is made of.

Importing this package costs almost nothing: a heavy library is imported by the room that needs it, when it
needs it. `labsupport.serve` is the one name that notebooks use from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labsupport.server.launch import serve

__all__ = ["__version__", "serve"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "serve":
        from labsupport.server.launch import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
