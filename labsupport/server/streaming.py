"""Server-sent events, and noticing that the client has gone.

Right means: whether an answer streams or not, the work behind it ends as soon as nobody waits for it; a
reader who is slow holds up nobody else; and whom the server cannot serve to the end, because it is told to
stop and its grace is over, is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from labsupport.server.stopping import server_stopping

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"


class ClientGone(Exception):
    """The client closed the connection before its answer was complete."""


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event. JSON has no raw line breaks, so one `data:` line is always enough."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; raises ClientGone, with `work` cancelled, if the client goes away first.

    The request's body must have been read: what `receive` gives next is then the disconnect.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def respond(
    receive: Receive, work: AsyncGenerator[bytes, None] | Coroutine[Any, Any, bytes]
) -> Response:
    """The response to a request whose work is the events of a stream, or one whole JSON body.

    The first event is awaited here, so that a refusal still gets its HTTP status.
    """
    try:
        if isinstance(work, AsyncGenerator):
            return EventStream(await unless_disconnected(receive, anext(work)), work)
        return Response(await unless_disconnected(receive, work), media_type="application/json")
    except ClientGone:
        return Response(status_code=499)  # nobody reads it; nginx's number for this in access logs


class EventStream(Response):
    """Sends events as they come and closes their source at the end, whoever ends it.

    A slow reader fills its own socket; `send` then waits, and what the engine makes meanwhile waits in this
    request's queue, which the request's own `max_tokens` bounds.
    """

    media_type = "text/event-stream"

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None]) -> None:
        self.first = first
        self.events = events
        self.status_code = 200
        self.background = None
        # Proxies that buffer would turn a stream into one late answer.
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with contextlib.aclosing(self.events):
                with contextlib.suppress(ClientGone):
                    await unless_disconnected(receive, self._send(send))
        except asyncio.CancelledError:
            last = event(server_stopping().body)
            await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.first, "more_body": True})
        async for data in self.events:
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
