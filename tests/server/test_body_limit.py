"""A request whose body never ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import FastAPI

from labsupport.server import errors
from labsupport.server.limits import BodyLimit


def application(limit_seconds: float) -> FastAPI:
    app = FastAPI()
    errors.install(app)
    app.add_middleware(BodyLimit, limit_bytes=1000, limit_seconds=limit_seconds)

    @app.post("/echo")
    async def echo(body: dict[str, int]) -> dict[str, int]:
        await asyncio.sleep(0.1)
        return body

    return app


def posted(app: FastAPI, *pieces: bytes, ends: bool) -> tuple[int, Any]:
    """Status and JSON of the answer to a body in `pieces`, after which the client falls silent."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages[-1]["more_body"] = not ends
    sent = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("nobody ends this silence")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/echo",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 5))
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


def test_half_a_body_gets_a_408_in_openais_format_when_its_time_is_over():
    status, answer = posted(application(0.05), b'{"a":', ends=False)

    assert status == 408
    assert answer["error"]["code"] == "body_too_slow"
    assert "within 0.05 s" in answer["error"]["message"]


def test_a_whole_body_in_pieces_is_answered_however_long_the_answer_takes():
    assert posted(application(0.05), b'{"a":', b" 1}", ends=True) == (200, {"a": 1})
