"""Server-sent events out of bytes that arrive in any pieces, as a load generator needs them: cheaply.

It shares its machine with the server that it measures, so what it costs is taken from the server. Lines are
split as bytes, because `str.splitlines` would also cut at U+2028, which JSON may contain.
Source: the HTML standard, "Server-sent events". OpenAI's protocol has one `data:` line in each event.
"""

from __future__ import annotations

DONE = b"[DONE]"


class EventLines:
    """Feed it what was read; it gives back the data of every event that is now complete.

    Comments (keep-alives) and other fields are skipped.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of complete `data:` lines, in order."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]
