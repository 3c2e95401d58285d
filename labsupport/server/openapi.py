"""The application's OpenAPI document, with every refusal that it can answer.

Right means: whatever a route answers, the document says that it may: its statuses, its content types and
the shape of its errors. FastAPI writes down what it can see, the types of requests and whole answers; it
cannot see middleware, nor that its 422 is a 400 here (an upstream's own 422 is passed on), nor streams. A
test sends what the document
allows, and what it forbids, and compares the answers with it.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from labsupport.server.auth import OPEN_PATHS

_ASKED = (400, 408, 413, 503)
"""Any route that reads a body; 503 while the server stops and the body has not come."""
_GENERATING = (*_ASKED, 404, 429, 500)
_REFUSALS: dict[str, tuple[int, ...]] = {
    "/v1/chat/completions": _GENERATING,
    "/v1/completions": _GENERATING,
    "/tokenize": (*_ASKED, 404, 500),
    "/v1/models/{name}": (404,),
    "/v1/usage": (400, 404, 503),
    "/debug/engine": (503,),
}
_RELAYED: dict[str, tuple[int, ...]] = {
    "/v1/chat/completions": (422, 502, 504),
    "/v1/completions": (422, 502, 504),
    "/tokenize": (501,),
}
_STREAMED = ("/v1/chat/completions", "/v1/completions")
_ERROR = {
    "title": "Error",
    "description": "OpenAI's error object.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "minLength": 1},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_STATUS = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}


class Application(FastAPI):
    """FastAPI, but its document tells the truth about refusals.

    has_keys: every route but health asks for one; without, only this computer's own names are answered.
    is_relay: another server does the work.
    """

    outermost: Callable[[ASGIApp], ASGIApp] | None = None
    """Goes around everything, and so sees the answer to a mistake of ours too, which middleware does not."""

    def __init__(self, *, has_keys: bool, is_relay: bool, **options: Any) -> None:
        super().__init__(**options)
        self._has_keys = has_keys
        self._is_relay = is_relay

    def build_middleware_stack(self) -> ASGIApp:
        """What is called for a request. Made once."""
        stack = super().build_middleware_stack()
        return self.outermost(stack) if self.outermost else stack

    def openapi(self) -> dict[str, Any]:
        """The document. Made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas["Error"] = _ERROR
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            if self._has_keys:
                document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    self._complete(path, operation)
        return self.openapi_schema or {}

    def _complete(self, path: str, operation: dict[str, Any]) -> None:
        responses = operation["responses"]
        responses.pop("422", None)
        statuses = set(_REFUSALS.get(path, _ASKED if "requestBody" in operation else ()))
        if self._is_relay:
            statuses.update(_RELAYED.get(path, ()))
        if self._has_keys and path not in OPEN_PATHS:
            statuses.add(401)
            operation["security"] = [{"key": []}]
        if not self._has_keys and path not in OPEN_PATHS:
            statuses.add(421)  # see `hosts`
        for status in sorted(statuses):
            responses.setdefault(str(status), _refusal(status))
        if path in _STREAMED:
            responses["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
        if path == "/metrics":
            responses["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
        if path == "/health/ready":
            responses["503"] = {
                "description": "The engine cannot take requests now.",
                "content": {"application/json": {"schema": _STATUS}},
            }


def _refusal(status: int) -> dict[str, Any]:
    described = {
        "description": HTTPStatus(status).phrase,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    return described | ({"headers": _RETRY} if status in {429, 503} else {})
