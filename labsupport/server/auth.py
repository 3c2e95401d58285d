"""Who may call: those with a key of `keys`.

Right means: with keys, every route but the two health routes and the engine room's page answers 401 without
one, unknown routes included; without keys, nobody outside this computer can reach the server at all.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Container, Sequence

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from labsupport.errors import LabsupportError
from labsupport.server.errors import ApiError
from labsupport.server.keys import Key, digest

OPEN_PATHS = frozenset({"/health/live", "/health/ready"})
"""What a load balancer must be able to ask without a key."""


class UnprotectedServer(LabsupportError):
    """An address that others can reach, and no key."""


def refuse_unprotected(host: str, keys: Sequence[Key]) -> None:
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


def key_name(request: Request) -> str:
    """The name of the caller's key; "" where no key is asked for."""
    return getattr(request.state, "key_name", "")


class BearerAuth:
    """ASGI middleware: 401 in OpenAI's shape unless the request carries one of `keys`; no keys, no check.

    `scope["state"]["key_name"]` becomes the key's name, which may be logged and counted; the key itself goes
    no further. `open_paths` need no key, nor does what `admits` lets in by other means.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Sequence[Key],
        open_paths: Container[str] = OPEN_PATHS,
        admits: Callable[[Scope], bool] = lambda scope: False,
    ) -> None:
        self.app = app
        self.keys = keys
        self.open_paths = open_paths
        self.admits = admits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_asked = scope["type"] == "http" and self.keys and scope["path"] not in self.open_paths
        if is_asked and not self.admits(scope):
            scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
            token = given.strip()
            hashed = digest(token)
            # No early exit: how long the comparison takes must not tell which key was nearly right.
            known = [key for key in self.keys if hmac.compare_digest(hashed, key.digest)]
            if scheme.lower() != "bearer" or not known:
                message = "No API key was given." if not token else "The API key is not known to this server."
                refusal = ApiError(
                    401, f"{message} Send `Authorization: Bearer KEY`.", code="invalid_api_key"
                )
                headers = {"WWW-Authenticate": "Bearer"}
                await JSONResponse(refusal.body, status_code=401, headers=headers)(scope, receive, send)
                return
            scope.setdefault("state", {})["key_name"] = known[0].name
        await self.app(scope, receive, send)
