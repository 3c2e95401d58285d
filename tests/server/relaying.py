"""A server of ours before a scripted upstream: what the tests of both share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from asking import ALICE, KEY, KEY_FILE, KEYS
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

    def chat(self, *, key: str = "", **changes: Any) -> httpx.Response:
        """One chat, with another key than that of the connection if there is one."""
        return self.http.post("/v1/chat/completions", json=BODY | changes, headers=_bearer(key))

    def lines(self, *, key: str = "", **changes: Any):
        """A stream, as the lines that come."""
        body = BODY | {"stream": True} | changes
        return self.http.stream("POST", "/v1/chat/completions", json=body, headers=_bearer(key))


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


@contextmanager
def relay_before_script(folder: Path, **options: Any) -> Iterator[Relay]:
    """Started for a `with` block; afterwards its log must hold neither key."""
    key_file = folder / "upstream-key"
    key_file.write_text(f"{UPSTREAM_KEY}\n")
    limits = {"slots": SLOTS, "max_waiting": SLOTS}
    defaults = {"upstream_model": "theirs", "upstream_key_file": key_file, "api_key": KEY} | limits
    defaults |= options
    with (
        ScriptedUpstream() as upstream,
        labsupport.serve("ours", engine="upstream", upstream=upstream.url, **defaults) as server,
        httpx.Client(base_url=server.url, headers=_bearer(defaults["api_key"]), timeout=60) as http,
    ):
        yield Relay(server, upstream, http)
        log = server.log_tail(1_000_000)
        for key in (UPSTREAM_KEY, KEY, *KEYS):
            assert key not in log


@contextmanager
def accounted_relay(folder: Path, *, more_keys: str = "", **options: Any) -> Iterator[Relay]:
    """The same with a ledger, at `folder / "ledger"`, and keys with limits; the connection has alice's."""
    (folder / "keys").write_text(KEY_FILE + more_keys)
    accounts = {"api_key": ALICE, "api_key_file": folder / "keys", "ledger": folder / "ledger"}
    with relay_before_script(folder, **(accounts | options)) as relay:
        yield relay


def chunks_of(text: str) -> list[dict[str, Any]]:
    """The JSON of every event but the last, which must be [DONE]."""
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]
