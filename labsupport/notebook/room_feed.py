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
        self._thread = threading.Thread(target=self._run, name="engine room", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Show no further frame, and leave."""
        self._closed.set()

    def _run(self) -> None:
        last_frame = time.monotonic()
        with httpx.Client(headers=self._headers, timeout=SILENCE_SECONDS) as http:
            while not self._closed.is_set():
                try:
                    if self._follow(http):
                        last_frame = time.monotonic()
                except httpx.HTTPError:
                    pass  # away, or cut off in the middle: told below
                if self._closed.is_set():
                    return
                if time.monotonic() - last_frame > GIVE_UP_SECONDS:
                    self._show({"said": "The server is gone. Run this cell again when there is one."})
                    return
                self._closed.wait(AGAIN_SECONDS)

    def _follow(self, http: httpx.Client) -> bool:
        """Show frames until the stream ends; whether there were any."""
        came = False
        with http.stream("GET", self._url) as response:
            if response.status_code != 200:
                response.read()
                self._show({"said": _refusal(response)})
                return False
            for line in response.iter_lines():
                if self._closed.is_set():
                    return came
                if line:
                    self._show(json.loads(line.removeprefix("data: ")))
                    came = True
        self._show({"said": "No connection to the server. Trying again every second."})
        return came


def _refusal(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {response.status_code}; it has no engine room."
