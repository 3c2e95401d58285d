"""Every refusal in the one shape that OpenAI's clients understand.

Right means: whatever goes wrong before the first byte of an answer is an HTTP status with
`{"error": {"message", "type", "param", "code"}}`, and names what was given, never a stack trace.
Shape: OpenAI's API reference, "Errors", and what the official client reads into `APIStatusError`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from labsupport.engine.client import EngineDied, RequestRefused
from labsupport.engine.faults import EngineFault, NoRoom
from labsupport.errors import LabsupportError


class ApiError(Exception):
    """A refusal with its HTTP status. `param` names the field at fault, `code` is for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = _sendable(message)
        self.param = None if param is None else _sendable(param)
        self.code = None if code is None else _sendable(code)
        self.headers = dict(headers or {})
        if retry_after_seconds is not None:
            self.headers["Retry-After"] = str(retry_after_seconds)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the response, or of the error event in a stream that is already open."""
        return {
            "error": {
                "message": self.message,
                "type": _KIND.get(
                    self.status, "invalid_request_error" if self.status < 500 else "server_error"
                ),
                "param": self.param,
                "code": self.code,
            }
        }


_KIND = {401: "authentication_error", 429: "rate_limit_error", 503: "service_unavailable_error"}


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """A 400: the request can never work as it is."""
    return ApiError(400, message, param=param, code=code)


def from_engine(error: LabsupportError, *, retry_after_seconds: int = 1) -> ApiError:
    """What the engine's errors mean to a client.

    400 for what the request itself made impossible, 503 for what a retry may mend (no room, an engine that
    is gone), 500 for a mistake of the engine's.
    """
    message = " ".join(
        part for part in (error.problem, error.allowed and f"Allowed: {error.allowed}.") if part
    )
    if isinstance(error, RequestRefused):
        return bad_request(message, code="request_refused")
    if isinstance(error, EngineFault):
        return ApiError(500, message, code="engine_fault")
    code = {EngineDied: "engine_died", NoRoom: "no_room"}.get(type(error), "engine_unavailable")
    return ApiError(503, message, code=code, retry_after_seconds=retry_after_seconds)


def install(app: FastAPI) -> None:
    """Make every error of `app` leave in OpenAI's shape, FastAPI's and Starlette's own included."""

    @app.exception_handler(ApiError)
    async def _(request: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body, status_code=error.status, headers=error.headers)

    @app.exception_handler(LabsupportError)
    async def _(request: Request, error: LabsupportError) -> JSONResponse:
        refusal = from_engine(error)
        return JSONResponse(refusal.body, status_code=refusal.status, headers=refusal.headers)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse(from_validation(error.errors()).body, status_code=400)

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        refusal = _from_http(request, error)
        return JSONResponse(refusal.body, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again after this answer, so the web server logs it with its traceback.
        refusal = ApiError(500, "The server made a mistake; its log says more.", code="internal_error")
        return JSONResponse(refusal.body, status_code=500)


def _from_http(request: Request, error: HTTPException) -> ApiError:
    where = f"{request.method} {request.url.path}"
    match error.status_code:
        case 404:
            return ApiError(404, f"There is no such route: {where}.", code="unknown_url")
        case 405:
            return ApiError(405, f"This route does not answer {where}.", code="method_not_allowed")
        case 400:
            return bad_request("The body cannot be read as JSON.", code="invalid_json")
        case 408:
            return ApiError(408, str(error.detail), code="body_too_slow")
        case 413:
            return ApiError(413, "The request body is larger than this server reads.", code="body_too_large")
        case status:
            return ApiError(status, str(error.detail))


def from_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The mistake that validation found deepest in the body, in words, as a 400.

    Deepest, because a value that may have several forms fails every one of them, and the form that was meant
    is the one that got furthest.
    """
    first = max(errors, key=_furthest)
    same_place = [error for error in errors if _furthest(error) == _furthest(first)]
    kind, place = first["type"], [part for part in first["loc"] if part != "body"]
    if kind == "json_invalid":
        reason = first["ctx"]["error"]
        return bad_request(
            f"The body is not valid JSON: {reason} (at character {place[0]}).", code="invalid_json"
        )
    if not place:
        return bad_request(
            "The body must be a JSON object, sent with `Content-Type: application/json`.", code="invalid_json"
        )
    if kind == "extra_forbidden":
        name, parent = str(place[-1]) or "(an empty name)", _path(place[:-1])
        param = shortened(f"{parent}.{name}" if parent else name)
        return bad_request(f"Unknown parameter: {param}.", param=param, code="unknown_parameter")
    param = _path(place)
    if kind == "missing":
        return bad_request(f"Missing parameter: {param}.", param=param, code="missing_parameter")
    reason = ", or ".join(dict.fromkeys(error["msg"] for error in same_place)).replace("Value error, ", "")
    given = f" Given: {shortened(_GIVEN.repr(first['input']))}." if "input" in first else ""
    return bad_request(f"Invalid {param}: {reason}.{given}", param=param, code="invalid_value")


def _furthest(error: Mapping[str, Any]) -> tuple[int, list[int]]:
    place = error["loc"]
    return len(place), [part for part in place if isinstance(part, int)]


def _path(place: Sequence[str | int]) -> str:
    """('messages', 0, 'role') as messages[0].role; names of a union's branches are pydantic's, not ours."""
    path = ""
    for part in place:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in _BRANCHES:
            path += f".{part}" if path else part
    return path


_BRANCHES = {"str", "int", "list", "float", "bool"}


# Looks only so far into what was given: a body of megabytes need not be written out to be cut to a line.
_GIVEN = reprlib.Repr()
_GIVEN.maxstring = _GIVEN.maxlong = _GIVEN.maxother = 100


def shortened(text: str, limit: int = 80) -> str:
    """What a client sent, cut to what a message can hold."""
    return text if len(text) <= limit else f"{text[:limit]}…"


def _sendable(text: str) -> str:
    """A lone surrogate is legal in JSON's escapes and in Python, and not in the UTF-8 of an answer."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
