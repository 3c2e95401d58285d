"""Which names a server without keys answers to: this computer's own.

A page of any web site can have its own name resolve to 127.0.0.1 once it is loaded (DNS rebinding); the
browser then lets its scripts read a server on this computer, which is loopback's only lock. What such a
request cannot hide is the name that it was made for, in `Host`. Right means: a request whose host is neither
localhost nor a loopback address gets 421 (RFC 9110, 15.5.20). With keys it is not needed: no site has one.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from labsupport.server.auth import OPEN_PATHS, is_loopback
from labsupport.server.errors import ApiError, shortened


class LoopbackHosts:
    """ASGI middleware: 421 in OpenAI's shape to requests for another host; health answers to any name."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            host = Headers(scope=scope).get("host")
            if host is not None and not is_loopback(host_name(host)):
                refusal = ApiError(
                    421,
                    f"This server has no API keys and answers only to localhost and loopback addresses, not "
                    f"to {shortened(repr(host))}. Ask for one of those, or start it with --api-key-file.",
                    code="unknown_host",
                )
                await JSONResponse(refusal.body, status_code=421)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def host_name(host: str) -> str:
    """A `Host` header's name or address, without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
