"""The routes: OpenAI's, tokenization, health and metrics.

Right means: a request is wholly checked before its answer begins; an answer that began ends with its last
chunk or with an error event; and no route hangs because the engine is loading, busy or gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from labsupport.server import errors, totals
from labsupport.server.accounts import Accounts
from labsupport.server.answers import (
    AnswerFormat,
    ChatCompletion,
    ChatFormat,
    CompletionFormat,
    TextCompletion,
)
from labsupport.server.auth import OPEN_PATHS, BearerAuth, key_name
from labsupport.server.chat_template import ChatTemplate
from labsupport.server.engine_link import EngineLink
from labsupport.server.errors import ApiError, bad_request, shortened
from labsupport.server.generation import Generator, Job, collect, stream
from labsupport.server.hosts import LoopbackHosts
from labsupport.server.key_limits import KeyLimits
from labsupport.server.keys import Key
from labsupport.server.ledger import Ledger
from labsupport.server.ledger_file import LedgerError
from labsupport.server.ledger_metrics import LedgerCollector
from labsupport.server.limits import Admission, BodyLimit
from labsupport.server.metrics import CountResponses, Metrics
from labsupport.server.openapi import Application
from labsupport.server.priorities import Priorities
from labsupport.server.prompts import Prompts, completion_tokens
from labsupport.server.protocol import ChatRequest, CompletionRequest, TokenizeRequest
from labsupport.server.room import routes as room
from labsupport.server.room.hub import Hub
from labsupport.server.room.sessions import Sessions
from labsupport.server.stopping import SayStopping
from labsupport.server.streaming import respond
from labsupport.server.structured import StructuredOutput
from labsupport.server.tokenizer import Tokenizer
from labsupport.server.upstream import routes as upstream_routes
from labsupport.server.upstream.link import Upstream

LARGEST_BODY_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class Served:
    """What the application serves and within which limits: one of the two below.

    name: the model's id in requests and in `/v1/models`.
    engine: what answers: one of our own, or another server.
    most_sequences: running and waiting together; more are answered 429.
    most_prompt_tokens: of those together; more are answered 429. None is without limit.
    keys: none means that no key is asked.
    ledger: where requests are written down, if anywhere; whoever opened it closes it.
    debug: adds `/debug/engine`, which reports the engine's invariants.
    """

    name: str
    engine: EngineLink | Upstream
    most_sequences: int
    most_prompt_tokens: int | None = None
    keys: tuple[Key, ...] = ()
    ledger: Ledger | None = None
    debug: bool = False

    def refuse_unknown(self, model: str) -> None:
        """Raise ApiError 404 for any model but the one that is served."""
        if model != self.name:
            raise ApiError(
                404,
                f"There is no model {shortened(repr(model))} here; this server has {self.name!r}.",
                param="model",
                code="model_not_found",
            )


@dataclass(frozen=True, kw_only=True)
class ServedHere(Served):
    """A model that an engine of our own runs, with what turns text into its tokens."""

    engine: EngineLink
    quantization: str
    tokenizer: Tokenizer
    template: ChatTemplate | None


@dataclass(frozen=True, kw_only=True)
class ServedElsewhere(Served):
    """A model that another server runs."""

    engine: Upstream


def build(served: Served) -> FastAPI:
    """The application. Its lifespan starts the engine and stops it."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        served.engine.begin()
        try:
            yield
        finally:
            structured.close()
            await served.engine.end()

    structured = StructuredOutput()
    app = Application(
        has_keys=bool(served.keys),
        is_relay=isinstance(served, ServedElsewhere),
        title="Under the Endpoint: inference server",
        lifespan=lifespan,
        docs_url=None,  # both pages fetch their scripts from the network; /openapi.json says the same
        redoc_url=None,
        redirect_slashes=False,  # it would go to whatever host the request names
    )
    app.state.is_leaving = lambda: False  # whoever runs the application knows better
    errors.install(app)
    metrics = Metrics(served.name, served.engine)
    if served.ledger:
        metrics.registry.register(LedgerCollector(served.name, served.ledger))
    app.add_middleware(
        BodyLimit, limit_bytes=LARGEST_BODY_BYTES, of_paths={room.SESSION_PATH: room.LARGEST_KEY_BYTES}
    )
    sessions = Sessions(served.keys)
    app.add_middleware(
        BearerAuth, keys=served.keys, open_paths=OPEN_PATHS | room.OPEN_PATHS, admits=sessions.admits
    )
    if not served.keys:
        app.add_middleware(LoopbackHosts)
    app.add_middleware(SayStopping)
    app.outermost = functools.partial(CountResponses, metrics=metrics)
    admission = Admission(served.most_sequences, served.most_prompt_tokens)
    accounts = Accounts(admission, served.ledger, KeyLimits(served.keys))
    priorities = Priorities(served.keys)
    if isinstance(served, ServedHere):
        _add_generation(app, served, accounts, metrics, priorities, structured)
    elif isinstance(served, ServedElsewhere):
        upstream_routes.add_routes(
            app,
            served.engine,
            accounts,
            metrics,
            name=served.name,
            refuse_unknown=served.refuse_unknown,
            priorities=priorities,
        )
    _add_models(app, served)
    _add_operations(app, served, metrics)
    _add_usage(app, served)
    hub = Hub(served.name, served.engine, metrics, is_leaving=lambda: app.state.is_leaving())
    room.add_routes(app, hub, sessions)
    return app


def _add_generation(
    app: FastAPI,
    served: ServedHere,
    accounts: Accounts,
    metrics: Metrics,
    priorities: Priorities,
    structured: StructuredOutput,
) -> None:
    generator = Generator(metrics, accounts, structured)
    prompts = Prompts(served.tokenizer, served.template)

    async def answer(
        request: Request, asked: ChatRequest | CompletionRequest, form: AnswerFormat
    ) -> Response:
        """What both generating routes do once they know how their answer is written."""
        arrived = time.monotonic()
        served.refuse_unknown(asked.model)
        key = key_name(request)
        priority = priorities.of(key, asked.priority)
        engine = served.engine.require()
        accounts.check(asked.num_sequences, key)  # before its prompts cost anything

        async def read() -> Job:
            context_tokens = engine.info.context_tokens
            encoded = await asyncio.to_thread(prompts.of, asked, context_tokens=context_tokens)
            limits = completion_tokens(asked, encoded, context_tokens=context_tokens)
            return Job(
                id=form.id,
                route=request.url.path,
                model=served.name,
                arrived=arrived,
                sequences=[
                    (tokens, asked.sampling(max_tokens=limit, choice=choice))
                    for tokens, limit in zip(encoded, limits, strict=True)
                    for choice in range(asked.choices_per_prompt)
                ],
                choices_per_prompt=asked.choices_per_prompt,
                key=key,
                form=asked.response_format,
                priority=priority,
            )

        async def whole() -> bytes:
            job = await read()
            return await collect(generator.run(job, engine), job, form)

        async def events() -> AsyncGenerator[bytes, None]:
            job = await read()
            chunks = stream(generator.run(job, engine), job, form, include_usage=asked.include_usage)
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

        # All that takes time is within, where it is noticed that the client has gone.
        response = await respond(request.receive, events() if asked.stream else whole())
        response.headers.update(accounts.headers(key))
        return response

    @app.post("/v1/chat/completions", response_model=ChatCompletion)
    async def chat(request: Request, asked: ChatRequest) -> Response:
        form = ChatFormat(served.name, with_logprobs=bool(asked.logprobs), include_usage=asked.include_usage)
        return await answer(request, asked, form)

    @app.post("/v1/completions", response_model=TextCompletion)
    async def complete(request: Request, asked: CompletionRequest) -> Response:
        form = CompletionFormat(
            served.name, with_logprobs=asked.logprobs is not None, include_usage=asked.include_usage
        )
        return await answer(request, asked, form)

    @app.post("/tokenize")
    async def tokenize(asked: TokenizeRequest) -> dict[str, Any]:
        """Token ids of a prompt or a conversation, as the generating routes would run them."""
        if asked.model is not None:
            served.refuse_unknown(asked.model)
        context_tokens = served.engine.context_tokens
        tokens = await asyncio.to_thread(prompts.of_tokenize, asked, context_tokens=context_tokens)
        spelled = await asyncio.to_thread(prompts.spell, tokens) if asked.return_token_strs else None
        return {
            "count": len(tokens),
            "max_model_len": context_tokens,
            "tokens": tokens,
            "token_strs": spelled,
        }


def _add_models(app: FastAPI, served: Served) -> None:
    created = int(time.time())

    def card() -> dict[str, Any]:
        return {
            "id": served.name,
            "object": "model",
            "created": created,
            "owned_by": "labsupport",
            "quantization": served.quantization if isinstance(served, ServedHere) else None,
            "max_model_len": served.engine.context_tokens,
        }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        served.refuse_unknown(name)
        return card()


def _add_operations(app: FastAPI, served: Served, metrics: Metrics) -> None:
    @app.get("/health/live")
    async def live() -> dict[str, str]:
        """200 as long as this process answers: restart it when it does not."""
        return {"status": "alive"}

    @app.get("/health/ready")
    async def ready() -> JSONResponse:
        """200 while the engine can take requests: send traffic elsewhere when it cannot."""
        if served.ledger and served.ledger.trouble:
            return JSONResponse({"status": "ledger_unavailable"}, status_code=503)
        is_ready = served.engine.ready
        status = {"status": served.engine.status}
        if trouble := served.engine.trouble:
            status["reason"] = trouble
        return JSONResponse(status, status_code=200 if is_ready else 503)

    @app.get("/metrics")
    async def scrape() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    link = served.engine
    if served.debug and isinstance(link, EngineLink):

        @app.get("/debug/engine")
        async def inspect() -> dict[str, Any]:
            """The engine's process id and the invariants of its pool and queue."""
            engine = link.require()
            return {"pid": engine.info.pid, **msgspec.to_builtins(await engine.inspect())}


def _add_usage(app: FastAPI, served: Served) -> None:
    @app.get("/v1/usage")
    async def usage(request: Request, since: str | None = None, until: str | None = None) -> dict[str, Any]:
        """What the caller's own key has used: of requests that arrived from `since` to before `until`.

        Nobody sees another key's: who may see all of them may read the file, `labsupport usage FILE`.
        """
        if served.ledger is None:
            raise ApiError(
                404, "This server keeps no usage ledger; it would with --ledger FILE.", code="no_ledger"
            )
        try:
            period = totals.Period.parse(since, until)
            own = await asyncio.to_thread(totals.of_key, served.ledger.path, key_name(request), period)
        except totals.PeriodError as error:
            raise bad_request(f"{error.problem}. Allowed: {error.allowed}.", code="invalid_value") from error
        except LedgerError as error:
            raise ApiError(503, error.problem, code="ledger_unavailable", retry_after_seconds=1) from error
        return {"object": "usage", "key": own.key, **period.as_json(), **own.as_json()}
