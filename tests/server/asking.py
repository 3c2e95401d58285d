"""What the tests of a running server share: a question, a key, and waiting for something to come true."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from labsupport.server.launch import Server

KEY = "a-key-for-the-tests"
KEYS = [f"the-key-of-{name}" for name in ("alice", "bob", "carol", "dave", "erin")]
ALICE, BOB, CAROL, DAVE, ERIN = KEYS
KEY_FILE = f"""
{ALICE} name=alice
{BOB} name=bob
{CAROL} name=carol requests-per-minute=2
{DAVE} name=dave tokens-per-minute=200
{ERIN} name=erin concurrent=1
"""
ABORTED = 'labsupport:request_success_total{finished_reason="abort"}'
ASK = [{"role": "user", "content": "What is a KV cache?"}]


def wait_until(condition: Callable[[], bool], *, seconds: float = 60, what: str = "the condition") -> float:
    """Seconds until `condition` held; fails the test if it never did."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            pytest.fail(f"{what} did not come true within {seconds} s")
        time.sleep(0.05)
    return time.monotonic() - begin


def is_idle(server: Server) -> bool:
    """Whether the engine holds nothing any more, and all its invariants hold."""
    state = server.get("/debug/engine").json()
    assert state.get("violations") == [], state
    return state["running"] == state["waiting"] == state["used_cells"] == 0 and not state["sequences"]


def leave_after(
    server: Server,
    body: dict[str, Any],
    *,
    route: str = "/v1/chat/completions",
    seconds: float = 0,
    until: Callable[[], bool] | None = None,
) -> None:
    """POST a request over a raw socket and hang up, after some seconds or once `until` holds."""
    address = (server.url.split("/")[2].split(":")[0], int(server.url.rsplit(":", 1)[1]))
    content = json.dumps(body).encode()
    with socket.create_connection(address) as connection:
        connection.sendall(
            f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        if until:
            wait_until(until, what="the request's start")
        else:
            time.sleep(seconds)
