"""The engine room in a notebook: the page at `/` of a server, drawn by the same JavaScript module.

    with labsupport.serve() as server:
        room = EngineRoom(server)
        display(room)

Right means: what the page shows is shown here, at the same pace, although the browser talks to the notebook's
kernel alone; and whoever reads the notebook without a kernel still finds a frame, the one at the time of
`display`, as words and a table.
"""

from __future__ import annotations

import html
import threading
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from labsupport.notebook.room_feed import RoomFeed
from labsupport.notebook.tables import table_html
from labsupport.server.room import FRONT

if TYPE_CHECKING:
    from labsupport.server.launch import Server

FIRST_FRAME_SECONDS = 3.0
"""How long a cell waits for the frame that it leaves behind for readers without a kernel."""


class EngineRoom(anywidget.AnyWidget):
    """Shows a server's engine at work, from now until `close()` or the server's end.

    server: what `labsupport.serve` gave, or the URL of any server of this course, with `api_key` if it wants
        one. frame: the newest frame as `labsupport.server.room.frame` describes it, {} before the first;
        with `said`, why, while none comes.
    """

    _esm = FRONT / "room.js"
    _css = FRONT / "room.css"
    frame = traitlets.Dict().tag(sync=True)

    def __init__(self, server: Server | str, *, api_key: str | None = None) -> None:
        super().__init__()
        self._url = (server if isinstance(server, str) else server.url).rstrip("/")
        headers = {} if isinstance(server, str) else server.headers
        if api_key:
            headers = {"Authorization": f"Bearer {api_key}"}
        self._came = threading.Event()
        self._feed = RoomFeed(self._url, headers, self._show)

    def close(self) -> None:
        """Stop watching, and take the room out of the page."""
        if hasattr(self, "_feed"):
            self._feed.close()
        super().close()

    def _show(self, frame: dict[str, Any]) -> None:
        self.frame = self.frame | frame if "said" in frame else frame
        self._came.set()

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        self._came.wait(FIRST_FRAME_SECONDS)
        bundle = super()._repr_mimebundle_(**options)
        if bundle is None:
            return None
        data, metadata = bundle
        fallback = {"text/plain": in_words(self.frame), "text/html": as_html(self.frame)}
        return {**data, **fallback}, metadata


def in_words(frame: dict[str, Any]) -> str:
    """A frame in a sentence or two."""
    if not frame.get("status"):
        return "Engine room: run this cell with a server to see its engine at work."
    minute, engine = frame["minute"], frame["engine"]
    words = (
        f"Engine room of {frame['model']} ({frame['status']}): {frame['running']} running, "
        f"{frame['waiting']} waiting, {minute['generated_rate']:.0f} tokens/s generated."
    )
    if engine:
        words += (
            f" Of {engine['total_cells']:,} KV cells {engine['used_cells']:,} are in use and "
            f"{engine['cached_cells']:,} kept for their prefix."
        )
    return words


def as_html(frame: dict[str, Any]) -> str:
    """The same with a table of who runs and who waits: what a page that runs nothing shows."""
    shown = f"<p>{html.escape(in_words(frame))}</p>"
    engine = frame.get("engine") or {"running": [], "waiting": []}
    rows = [
        (one["name"], one["phase"], one["slot"], one["prompt_tokens"], one["generated_tokens"])
        for one in engine["running"]
    ]
    rows += [
        (one["name"], "waiting", "none", one["prompt_tokens"], one["generated_tokens"])
        for one in engine["waiting"]
    ]
    if not rows:
        return shown
    headings = ("Request", "State", "Slot", "Prompt (tokens)", "Generated (tokens)")
    columns = dict(zip(headings, zip(*rows, strict=True), strict=True))
    return shown + table_html(columns, caption="Requests, running and waiting")
