"""OpenAI's routes where an upstream does the work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response

from labsupport.server.answers import ChatCompletion, TextCompletion
from labsupport.server.auth import key_name
from labsupport.server.errors import ApiError
from labsupport.server.limits import Admission
from labsupport.server.metrics import Metrics
from labsupport.server.priorities import Priorities
from labsupport.server.protocol import TokenizeRequest
from labsupport.server.streaming import respond
from labsupport.server.upstream.exchange import Exchange, Order
from labsupport.server.upstream.link import Upstream
from labsupport.server.upstream.meter import Meters
from labsupport.server.upstream.requests import RelayedChat, RelayedCompletion, body_for

FORWARDED_HEADERS = ("x-request-id", "traceparent", "tracestate")
"""What of our client's headers the upstream sees: what ties the logs of both together, and no key."""
LONGEST_HEADER_CHARACTERS = 512


def add_routes(
    app: FastAPI,
    upstream: Upstream,
    admission: Admission,
    metrics: Metrics,
    *,
    name: str,
    refuse_unknown: Callable[[str], None],
    priorities: Priorities,
) -> None:
    """Add the generating routes and `/tokenize`.

    name: the model's, for our clients. refuse_unknown: raises ApiError 404 for any other. priorities: of
        our keys; it is the upstream that makes something of them.
    """
    meters = Meters(metrics, name)

    async def relay(route: str, request: Request, asked: RelayedChat | RelayedCompletion) -> Response:
        arrived = time.monotonic()
        refuse_unknown(asked.model)
        priority = priorities.of(key_name(request), asked.priority)
        given = await request.json() | ({"priority": priority} if priority else {})
        order = Order(
            route=route,
            body=body_for(upstream.config.model, given, stream=bool(asked.stream)),
            headers=_forwarded(request),
            sequences=asked.sequences,
            include_usage=asked.include_usage,
        )
        meter = meters.open(order.sequences, arrived=arrived)
        exchange = Exchange(order, upstream, admission, meter, model=name)
        response = await respond(request.receive, exchange.events() if asked.stream else exchange.whole())
        response.headers.update(exchange.returned_headers)
        return response

    @app.post("/v1/chat/completions", response_model=ChatCompletion)
    async def chat(request: Request, asked: RelayedChat) -> Response:
        return await relay("chat/completions", request, asked)

    @app.post("/v1/completions", response_model=TextCompletion)
    async def complete(request: Request, asked: RelayedCompletion) -> Response:
        return await relay("completions", request, asked)

    @app.post("/tokenize")
    async def tokenize(asked: TokenizeRequest) -> dict[str, Any]:
        """501: only the upstream has the model's tokenizer."""
        raise ApiError(
            501,
            "This server passes requests on to another and has no tokenizer of the model; "
            "the usage of an answer says how many tokens its prompt had.",
            code="no_tokenizer",
        )


def _forwarded(request: Request) -> dict[str, str]:
    headers = {name: request.headers.get(name, "") for name in FORWARDED_HEADERS}
    return {
        name: value
        for name, value in headers.items()
        if value and value.isascii() and len(value) <= LONGEST_HEADER_CHARACTERS
    }
