"""The room's routes: its page and that page's parts, the exchange of a key, and the stream of frames.

None is in the API's description: they are the page's own. Page and parts hold nothing of this server, so
they need no key; the stream does.
"""

from __future__ import annotations

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse

from labsupport.server.fields import Strict
from labsupport.server.room import FRONT
from labsupport.server.room.hub import Hub
from labsupport.server.room.sessions import COOKIE_PATH, EVENTS_PATH, Sessions
from labsupport.server.streaming import respond

SESSION_PATH = f"{COOKIE_PATH}/session"
LARGEST_KEY_BYTES = 4096
"""Of the exchange's body: its route is open, and what nobody was asked a key for is not kept in memory."""
_PARTS = {
    "room.js": "text/javascript",
    "room.css": "text/css",
    "page.js": "text/javascript",
    "page.css": "text/css",
}
OPEN_PATHS = frozenset({"/", SESSION_PATH, *(f"/room/{name}" for name in _PARTS)})
"""What needs no key; the session's route asks for it itself."""
_HEADERS = {
    # Nothing from anywhere else, nothing inline, and no page around this one.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class KeyForSession(Strict):
    """The body of the exchange."""

    key: str


def add_routes(app: FastAPI, hub: Hub, sessions: Sessions) -> None:
    """Add the page at `/` and what it needs."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(FRONT / "index.html", media_type="text/html", headers=_HEADERS)

    @app.post(SESSION_PATH, include_in_schema=False)
    async def exchange(request: Request, given: KeyForSession) -> Response:
        """A key for a cookie: 204, or 401 if there is no such key."""
        response = Response(status_code=204, headers={"Cache-Control": "no-store"})
        sessions.open(given.key, response, is_https=request.url.scheme == "https")
        return response

    @app.get(EVENTS_PATH, include_in_schema=False)
    async def events(request: Request) -> Response:
        """Server-sent events, one per frame (see `frame`), until the reader or the server leaves."""
        return await respond(request.receive, hub.watch())

    @app.get("/room/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in _PARTS:
            raise HTTPException(404)
        return FileResponse(FRONT / name, media_type=_PARTS[name], headers=_HEADERS)
