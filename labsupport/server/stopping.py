"""What whoever the server cannot serve to the end is told, when it has to stop and its grace is over.

Right means: wherever a request is when the web server cancels it (its body is awaited, its prompt is read,
its schema is tried, its answer is made), its client gets a 503 in OpenAI's shape and not a broken connection
or a 500. An answer that has begun is its own business: see `streaming.EventStream`.
"""

from __future__ import annotations

import asyncio

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labsupport.server.errors import ApiError


def server_stopping() -> ApiError:
    """For a request that is cancelled before its answer was complete."""
    return ApiError(
        503,
        "The server is stopping and could not wait for the end of this answer.",
        code="server_stopping",
        retry_after_seconds=1,
    )


class SayStopping:
    """ASGI middleware: 503 to a request that the web server cancels before its answer has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except asyncio.CancelledError:
            if scope["type"] != "http" or has_begun:
                raise
            refusal = server_stopping()
            await JSONResponse(refusal.body, refusal.status, refusal.headers)(scope, receive, send)
