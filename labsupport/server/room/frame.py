"""One frame: all that the picture and its tables show, complete in itself."""

from __future__ import annotations

import msgspec

from labsupport.engine.snapshot import Snapshot
from labsupport.server.room.last_minute import MinuteView


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """What `front/room.js` draws, so a reader who misses some frames misses nothing of the next.

    status: of the engine (`loading`, `ready`, `restarting`) or the upstream (`connecting`, `ready`,
        `unreachable`, `failing`, `key_refused`); `stopping` while the server finishes its last answers.
    has_engine: False before an upstream, into which nobody can look: `engine` is then None always.
    engine: the newest snapshot, with the steps of the last few seconds; None while there is none.
    running, waiting: sequences.
    """

    model: str
    status: str
    has_engine: bool
    restarts: int
    running: int
    waiting: int
    engine: Snapshot | None
    minute: MinuteView


def event(frame: Frame) -> bytes:
    """A frame as a server-sent event."""
    return b"data: " + msgspec.json.encode(frame) + b"\n\n"
