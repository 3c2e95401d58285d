"""The room's cookie: a browser has no place for an API key, so the page exchanges it for a session.

Right means: a session opens the room's stream and no other route; it is not the key and does not tell it; it
ends after a working day, and at once when the key leaves the key file. It outlives a restart of the server,
because nothing is kept here: it is its own time of expiry, signed (HMAC-SHA256, RFC 2104) with what the
server knows of the key, the key's digest. Whoever stole a session could test guesses of the key against it,
which is hopeless for a key as `openssl rand` makes them.

A browser sends a cookie to all ports of a host (RFC 6265, 8.5), and a newer one of the same name takes the
place of an older. So each key has a cookie name of its own: two servers on one host, or two behind one proxy,
do not end each other's sessions, and those that share a key share its session.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence

from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from labsupport.server.errors import ApiError
from labsupport.server.keys import Key, digest

COOKIE_PREFIX = "labsupport_room_"
COOKIE_PATH = "/room"
"""Browsers send it to no other route, and to no other server on this host that has no such path."""
EVENTS_PATH = "/room/events"
SESSION_SECONDS = 12 * 3600
_PURPOSE = b"labsupport engine room, until "
_NAMING = b"labsupport engine room, its cookie's name"


class Sessions:
    """Sessions for the holders of `keys`."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = keys

    def open(self, secret: str, response: Response, *, is_https: bool) -> None:
        """Give a response the cookie of a new session. Raises ApiError 401 if `secret` is no key of ours."""
        hashed = digest(secret)
        known = [key for key in self._keys if hmac.compare_digest(hashed, key.digest)]
        if not known:
            raise ApiError(401, "The API key is not known to this server.", code="invalid_api_key")
        expires = int(time.time()) + SESSION_SECONDS
        response.set_cookie(
            cookie_name(known[0]),
            f"{expires}.{_signature(known[0], expires)}",
            max_age=SESSION_SECONDS,
            path=COOKIE_PATH,
            httponly=True,
            samesite="strict",
            secure=is_https,
        )

    def admits(self, scope: Scope) -> bool:
        """Whether a request is for the room's stream and carries a session that is still good."""
        if scope["path"] != EVENTS_PATH:
            return False
        for name, value in scope["headers"]:
            if name == b"cookie":
                cookies = cookie_parser(value.decode("latin-1"))
                if any(_is_good(cookies.get(cookie_name(key), ""), key) for key in self._keys):
                    return True
        return False


def cookie_name(key: Key) -> str:
    """The name of a key's cookie, which tells as much of the key as a session does."""
    return COOKIE_PREFIX + hmac.digest(key.digest, _NAMING, "sha256").hex()[:8]


def _is_good(session: str, key: Key) -> bool:
    expires, _, signature = session.partition(".")
    if not (expires.isascii() and expires.isdigit() and len(expires) < 20 and signature.isascii()):
        return False
    return hmac.compare_digest(signature, _signature(key, int(expires))) and time.time() < int(expires)


def _signature(key: Key, expires: int) -> str:
    return hmac.digest(key.digest, _PURPOSE + str(expires).encode(), "sha256").hex()
