"""Who may call: bearer keys read from a file.

Right means: with keys, every route but the two health routes answers 401 without one, unknown routes
included; without keys, nobody outside this computer can reach the server at all.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from labsupport.errors import LabsupportError
from labsupport.server.errors import ApiError

OPEN_PATHS = frozenset({"/health/live", "/health/ready"})
"""What a load balancer must be able to ask without a key."""


class KeyFileError(LabsupportError):
    """The key file is missing, unreadable or holds no key."""


class UnprotectedServer(LabsupportError):
    """An address that others can reach, and no key."""


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys in a file, one a line; blank lines and # comments are skipped. Raises KeyFileError."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"the key file {path} cannot be read: {error}") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys or any(not key.isascii() or " " in key for key in keys):
        raise KeyFileError(
            f"the key file {path} holds {'a key that is no header value' if keys else 'no key'}",
            allowed="one key a line, of ASCII characters without spaces",
            remedy=f"write one: `openssl rand -hex 24 > {path}`",
        )
    return keys


def refuse_unprotected(host: str, keys: Sequence[str]) -> None:
    """Raise UnprotectedServer if `host` is not loopback and there is no key."""
    if not keys and not is_loopback(host):
        raise UnprotectedServer(
            f"--host {host} can be reached by other computers, and there is no API key",
            allowed="127.0.0.1, ::1 or localhost without a key; any address with one",
            remedy="add `--api-key-file FILE` with one key a line",
        )


def is_loopback(host: str) -> bool:
    """Whether an address is this computer's own. A name other than localhost could mean anything: no."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class BearerAuth:
    """ASGI middleware: 401 in OpenAI's shape unless the request carries one of `keys`; no keys, no check.

    `scope["state"]["key_name"]` becomes a short digest of the key, which may be logged and counted; the key
    itself goes no further.
    """

    def __init__(self, app: ASGIApp, *, keys: Sequence[str]) -> None:
        self.app = app
        self.keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.keys and scope["path"] not in OPEN_PATHS:
            scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
            token = given.strip().encode("utf-8", "replace")
            # No early exit: how long the comparison takes must not tell which key was nearly right.
            known = [hmac.compare_digest(token, key) for key in self.keys]
            if scheme.lower() != "bearer" or not any(known):
                message = "No API key was given." if not token else "The API key is not known to this server."
                refusal = ApiError(
                    401, f"{message} Send `Authorization: Bearer KEY`.", code="invalid_api_key"
                )
                headers = {"WWW-Authenticate": "Bearer"}
                await JSONResponse(refusal.body, status_code=401, headers=headers)(scope, receive, send)
                return
            scope.setdefault("state", {})["key_name"] = hashlib.sha256(token).hexdigest()[:12]
        await self.app(scope, receive, send)
