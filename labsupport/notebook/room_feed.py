"""Reads a server's engine room in Python, for a notebook whose browser cannot reach the server's port.

Right means: frames come as the server makes them, while a cell is busy too; a server that is started again
is found again; one that is gone for good is given up, because its port may become another's, which must not
be sent our key; and a feed that is closed is over within a second or so.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

AGAIN_SECONDS = 1.0
GIVE_UP_SECONDS = 30.0
"""How long a server may be away."""
SILENCE_SECONDS = 10.0
"""A server sends several frames a second: after this it is away."""
AWAY = "No connection to the server. Trying again every second."
GONE = "The server is gone. Run this cell again when there is one."


class RoomFeed:
    """Calls `show` with every frame, as a dictionary, in a thread of its own.

    url: of the server, without a slash at its end. headers: with its key, if it has one.
    A frame of ours, `{"said": …}`, says why there are none of the server's.
    """

    def __init__(self, url: str, headers: Mapping[str, str], show: Callable[[dict[str, Any]], None]) -> None:
        self._url = f"{url}/room/events"
        self._headers = dict(headers)
        self._show = show
        self._closed = threading.Event()
        self._last_frame = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine room", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Show no further frame, and leave."""
        self._closed.set()

    def _run(self) -> None:
        with httpx.Client(headers=self._headers, timeout=SILENCE_SECONDS) as http:
            while not self._closed.is_set():
                try:
                    said = self._follow(http)
                except httpx.HTTPError:
                    said = AWAY
                is_over = time.monotonic() - self._last_frame > GIVE_UP_SECONDS
                if not self._closed.is_set():
                    self._show({"said": GONE if is_over else said})
                if is_over:
                    return
                self._closed.wait(AGAIN_SECONDS)

    def _follow(self, http: httpx.Client) -> str:
        """Show frames until the stream ends, and say why it did."""
        with http.stream("GET", self._url) as response:
            if response.status_code != 200:
                response.read()
                return _refusal(response)
            for line in response.iter_lines():
                if self._closed.is_set():
                    break
                if line:
                    self._show(json.loads(line.removeprefix("data: ")))
                    self._last_frame = time.monotonic()
        return AWAY


def _refusal(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {response.status_code}; it has no engine room."
