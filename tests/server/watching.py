"""What the tests of the engine room share: its frames, and requests that keep the engine at work."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from labsupport.server.launch import Server

Frame = dict[str, Any]
STEM = "You answer the questions of a team that runs servers, briefly and with numbers. " * 5
"""What the requests of `at_work` have in common."""
MARKER = "quokka"
"""In every prompt of `at_work`; it must come to no watcher."""


@contextmanager
def frames_of(server: Server, **headers: str) -> Iterator[Iterator[Frame]]:
    """The frames of one watcher, who leaves at the end of the block."""
    with httpx.stream(
        "GET", f"{server.url}/room/events", headers=server.headers | headers, timeout=120
    ) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield (json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line)


def first(frames: Iterator[Frame], condition: Callable[[Frame], Any], *, seconds: float = 120) -> Frame:
    """The first frame of which something is true."""
    begin = time.monotonic()
    for frame in frames:
        if condition(frame):
            return frame
        assert time.monotonic() - begin < seconds, f"not within {seconds} s; the newest frame: {frame}"
    raise AssertionError("the stream ended before")


@contextmanager
def at_work(server: Server, *, requests: int = 2, max_tokens: int = 200) -> Iterator[None]:
    """So many requests at once with a common stem, again and again, for the block."""
    is_over = threading.Event()

    def ask(number: int) -> None:
        body = {
            "model": server.model,
            "prompt": f"{STEM}{MARKER} {number}",
            "max_tokens": max_tokens,
            "ignore_eos": True,
        }
        with httpx.Client(base_url=server.url, headers=server.headers, timeout=120) as http:
            while not is_over.is_set():
                http.post("/v1/completions", json=body).raise_for_status()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(requests)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
