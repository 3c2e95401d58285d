"""Server-sent events out of bytes that arrive in any pieces.

Right means: an event is given out with the byte that completes it, wherever the network cut the stream, and
whichever of the three line ends the sender uses.
Source: the HTML standard, "Server-sent events", "Parsing an event stream". Only `data` matters in OpenAI's
protocol; other fields and comments (keep-alives) are skipped.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventTooLarge(ValueError):
    """An event grew beyond the limit, or a line without an end did."""


class EventParser:
    """Feed it what was read; it gives back the data of every event that is now complete.

    The work is proportional to the bytes: what is held of an unfinished line is not looked at again.
    """

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._ended_with_return = False

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that `piece` completes, in order. Raises EventTooLarge."""
        if self._ended_with_return and piece.startswith(b"\n"):
            piece = piece[1:]  # the second half of a line end that was already taken for one
        self._ended_with_return = piece.endswith(b"\r")
        events = []
        *ended, unfinished = _LINE_END.split(piece)
        for end in ended:
            line = bytes(self._line + end)
            self._line.clear()
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
                self._data_bytes += len(line)
            elif not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                self._data, self._data_bytes = [], 0
        self._line += unfinished
        if len(self._line) + self._data_bytes > self._limit_bytes:
            raise EventTooLarge
        return events
