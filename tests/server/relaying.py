"""A server of ours before a scripted upstream: what the tests of both share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from asking import KEY
from scripted_upstream import ScriptedUpstream

import labsupport
from labsupport.server.launch import Server

UPSTREAM_KEY = "sk-the-key-that-nobody-may-see"
SLOTS = 4
BODY: dict[str, Any] = {"model": "ours", "messages": [{"role": "user", "content": "Hello?"}]}


@dataclass
class Relay:
    """Our server, the upstream behind it, and a connection of a client that has the right key."""

    server: Server
    upstream: ScriptedUpstream
    http: httpx.Client

    def chat(self, **changes: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json=BODY | changes)

    def lines(self, **changes: Any):
        """A stream, as the lines that come."""
        return self.http.stream("POST", "/v1/chat/completions", json=BODY | {"stream": True} | changes)


@contextmanager
def relay_before_script(folder: Path, **options: Any) -> Iterator[Relay]:
    """Started for a `with` block; afterwards its log must hold neither key."""
    key_file = folder / "upstream-key"
    key_file.write_text(f"{UPSTREAM_KEY}\n")
    limits = {"slots": SLOTS, "max_waiting": SLOTS}
    defaults = {"upstream_model": "theirs", "upstream_key_file": key_file, "api_key": KEY} | limits
    headers = {"Authorization": f"Bearer {KEY}"}
    with (
        ScriptedUpstream() as upstream,
        labsupport.serve("ours", engine="upstream", upstream=upstream.url, **(defaults | options)) as server,
        httpx.Client(base_url=server.url, headers=headers, timeout=60) as http,
    ):
        yield Relay(server, upstream, http)
        log = server.log_tail(1_000_000)
        assert UPSTREAM_KEY not in log
        assert KEY not in log


def chunks_of(text: str) -> list[dict[str, Any]]:
    """The JSON of every event but the last, which must be [DONE]."""
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]
