"""Whose fault it is that a request ended with an error, and the exception that says so to who asked.

Right means: only what the request itself made impossible is blamed on it; a lack of room may pass, so it is
worth asking again; and the rest is our mistake.
"""

from __future__ import annotations

from labsupport.engine.messages import Delta
from labsupport.engine.validation import RequestRefused
from labsupport.errors import LabsupportError


class NoRoom(LabsupportError):
    """The device found no memory for a request that fits by the engine's own count."""


class EngineFault(LabsupportError):
    """The engine could not do what it should have been able to."""


def exception_for(ending: Delta) -> RequestRefused | NoRoom | EngineFault:
    """The exception for a delta whose `finish_reason` is `error`."""
    match ending.fault:
        case "request":
            return RequestRefused(ending.error)
        case "room":
            return NoRoom(ending.error, remedy="Ask again in a moment, or for less.")
        case _:
            return EngineFault(ending.error)
