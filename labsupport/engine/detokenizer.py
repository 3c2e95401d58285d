"""From tokens' bytes to text that can be shown: never half a character, never the beginning of a stop string.

Right means: the pieces put together are the whole text, cut before the first stop string if there is one; and
nothing is held back that is sure to be shown.
"""

from __future__ import annotations

import codecs


class Detokenizer:
    """One answer's text as it comes. `stopped` once a stop string was met; what follows is then ignored."""

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self.stopped = False
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def push(self, piece: bytes) -> str:
        """Take a token's bytes; give the text that may be shown now."""
        return self._show(self._decoder.decode(piece))

    def finish(self) -> str:
        """The answer ends here: give what was held back.

        Bytes that never became a character become U+FFFD.
        """
        shown = self._show(self._decoder.decode(b"", final=True))
        shown, self._held = shown + self._held, ""
        return shown

    def _show(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        if not self._stop:
            shown, self._held = self._held, ""
            return shown
        found = [place for place in (self._held.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self.stopped = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        keep = max(_overlap(self._held, stop) for stop in self._stop)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` could be the beginning of `stop`."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
