"""OpenAI's routes where an upstream does the work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response

from labsupport.server.accounts import Accounts
from labsupport.server.accounts import Request as Admitted
from labsupport.server.answers import ChatCompletion, TextCompletion, new_id
from labsupport.server.auth import key_name
from labsupport.server.errors import ApiError
from labsupport.server.metrics import Metrics
from labsupport.server.priorities import Priorities
from labsupport.server.protocol import TokenizeRequest
from labsupport.server.streaming import respond
from labsupport.server.upstream import headers
from labsupport.server.upstream.config import CONTINUOUS_USAGE
from labsupport.server.upstream.estimate import prompt_tokens
from labsupport.server.upstream.exchange import Exchange, Order
from labsupport.server.upstream.link import Upstream
from labsupport.server.upstream.meter import Meters
from labsupport.server.upstream.requests import (
    RelayedChat,
    RelayedCompletion,
    body_for,
    refuse_unknown_to,
)


def add_routes(
    app: FastAPI,
    upstream: Upstream,
    accounts: Accounts,
    metrics: Metrics,
    *,
    name: str,
    refuse_unknown: Callable[[str], None],
    priorities: Priorities,
) -> None:
    """Add the generating routes and `/tokenize`.

    name: the model's, for our clients. refuse_unknown: raises ApiError 404 for any other. priorities: of
        our keys; it is the upstream that makes something of them, where it is known to.
    """
    meters = Meters(metrics, name, has_running_usage=CONTINUOUS_USAGE in upstream.config.knows)

    async def relay(request: Request, asked: RelayedChat | RelayedCompletion, prefix: str) -> Response:
        arrived = time.monotonic()
        refuse_unknown(asked.model)
        priority = priorities.of(key_name(request), asked.priority)
        refuse_unknown_to(upstream.config, asked)
        accounts.check(asked.sequences, key_name(request))  # before its prompt costs anything
        given = await request.json()
        body = body_for(upstream.config, given, stream=bool(asked.stream), priority=priority)
        longest = asked.completion_limit(0)  # of one choice; 0 if nothing limits it
        admitted = Admitted(
            id=new_id(prefix),
            key=key_name(request),
            route=request.url.path,
            model=name,
            arrived=arrived,
            sequences=asked.sequences,
            most_tokens=prompt_tokens(given, sent_bytes=len(body)) + asked.sequences * longest,
            is_unbounded=longest == 0,
        )
        order = Order(
            request=admitted,
            route=request.url.path.removeprefix("/v1/"),
            body=body,
            headers=headers.crossing(request.headers, headers.FORWARDED),
            include_usage=asked.include_usage,
        )
        meter = meters.open(asked.sequences, arrived=arrived, choices_per_prompt=asked.choices_per_prompt)
        exchange = Exchange(order, upstream, accounts, meter)
        response = await respond(request.receive, exchange.events() if asked.stream else exchange.whole())
        response.headers.update(exchange.returned_headers | accounts.headers(admitted.key))
        return response

    @app.post("/v1/chat/completions", response_model=ChatCompletion)
    async def chat(request: Request, asked: RelayedChat) -> Response:
        return await relay(request, asked, "chatcmpl")

    @app.post("/v1/completions", response_model=TextCompletion)
    async def complete(request: Request, asked: RelayedCompletion) -> Response:
        return await relay(request, asked, "cmpl")

    @app.post("/tokenize")
    async def tokenize(asked: TokenizeRequest) -> dict[str, Any]:
        """501: only the upstream has the model's tokenizer."""
        raise ApiError(
            501,
            "This server passes requests on to another and has no tokenizer of the model; "
            "the usage of an answer says how many tokens its prompt had.",
            code="no_tokenizer",
        )
