"""One server as a caller sees it: is it there, which model has it, and one streamed request, timed.

Right means: whatever happens to a request ends in its record, with the time until then; and a stream that
goes silent is given up after `timeout_seconds`, keep-alive comments or not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import msgspec

from labsupport.errors import LabsupportError
from labsupport.loadtest.events import DONE, EventLines
from labsupport.loadtest.prompts import Prompt
from labsupport.loadtest.record import CountedBy, Record

CONNECT_SECONDS = 10.0
_EXCERPT = 200


class Usage(msgspec.Struct):
    """The server's own count. (`cached_tokens` is in `prompt_tokens_details`, where a server gives it.)"""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: dict[str, Any] | None = None


class Delta(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    text: str | None = None
    delta: Delta | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    """One event of either route's stream. Unknown fields are skipped."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(Chunk).decode


class NothingToTest(LabsupportError):
    """A load test that cannot begin (no server, another kind of server, no such model) or that all failed."""


class Client:
    """A connection pool to one server. `async with`."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout_seconds: float = 60.0) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.timeout_seconds = timeout_seconds
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(
            base_url=_checked(self.url),
            headers=headers,
            trust_env=False,  # a proxy of the environment is not what is to be measured
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),  # silence is timed by `ask`
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def model(self, wanted: str | None = None) -> str:
        """The model to ask for: `wanted`, or the only one there is.

        Raises NothingToTest if nothing answers, if what answers speaks another protocol or wants a key, or if
        it has no such model.
        """
        names = await self._models()
        if wanted is None and len(names) == 1:
            return names[0]
        if wanted is None or wanted not in names:
            problem = "no model was named" if wanted is None else f"{self.url} has no model {wanted!r}"
            raise NothingToTest(problem, allowed=", ".join(names) or "none: the server lists no model")
        return wanted

    async def _models(self) -> list[str]:
        wrong = NothingToTest(
            f"{self.url} answers, but it is no server of OpenAI's protocol",
            allowed="an address whose /v1/models lists models",
            remedy="Is it the right port? The address goes without a route: http://127.0.0.1:8000.",
        )
        try:
            async with asyncio.timeout(self.timeout_seconds):
                response = await self._http.get("/v1/models")
        except (httpx.RemoteProtocolError, httpx.DecodingError) as error:
            raise wrong from error
        except (httpx.TransportError, TimeoutError) as error:
            raise NothingToTest(
                f"nothing answers at {self.url} ({_fault(error)})",
                remedy="Start a server (`labsupport serve`) or give the address of one that runs.",
            ) from error
        if response.status_code in (401, 403):
            raise NothingToTest(f"{self.url} wants a key", remedy="--api-key-file FILE, or api_key=…")
        try:
            return [str(model["id"]) for model in response.raise_for_status().json()["data"]]
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as error:
            raise wrong from error

    async def ask(
        self, prompt: Prompt, body: dict[str, Any], *, clock: Callable[[], float], arrived: float
    ) -> Record:
        """Send one request and read its answer to the end. Raises nothing that a server can cause.

        clock: seconds since the run began. arrived: when the request was due, on that clock.
        """
        sent = clock()
        answer = _Answer()
        error = ""
        try:
            async with asyncio.timeout(None) as silence:
                wire = _Wire()
                while not wire.was_answered:
                    try:
                        await self._read(prompt.path, body, answer, clock, silence, wire)
                    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                        if wire.is_new or wire.was_answered:
                            raise
            if not answer.finish_reason:
                error = "the stream ended without a finish reason"
        except TimeoutError:
            error = f"no answer came for {self.timeout_seconds:g} s"
        except httpx.HTTPError as fault:
            error = f"the connection failed ({_fault(fault)})"
        except (_Refused, msgspec.DecodeError) as fault:
            error = str(fault) if isinstance(fault, _Refused) else "an event of the stream is no chunk"
        return answer.record(
            arrived=arrived, sent=sent, ended=clock(), error=error, limit=body.get("max_tokens") or 0
        )

    async def _read(
        self,
        path: str,
        body: dict[str, Any],
        answer: _Answer,
        clock: Callable[[], float],
        silence: asyncio.Timeout,
        wire: _Wire,
    ) -> None:
        """Read one stream into `answer`; every event puts the end of patience off."""
        now = asyncio.get_running_loop().time
        silence.reschedule(now() + self.timeout_seconds)
        async with self._http.stream("POST", path, json=body, extensions={"trace": wire}) as response:
            if response.status_code != 200:
                raise _Refused(f"HTTP {response.status_code}: {_message(await response.aread())}")
            lines = EventLines()
            async for piece in response.aiter_raw():
                came = clock()
                for data in lines.feed(piece):
                    silence.reschedule(now() + self.timeout_seconds)
                    if data != DONE:
                        answer.add(_decode_chunk(data), came)


class _Refused(Exception):
    """The server's own words for not answering."""


class _Wire:
    """What is known of a request's connection: was it made for it, and did an answer begin?

    If neither, it was kept from before and the server closed it at that moment, without a word. That is
    nobody's fault, and clients ask again (RFC 9112, section 9.5).
    """

    is_new = was_answered = False

    async def __call__(self, event: str, _: dict[str, Any]) -> None:
        """Take in an event of httpcore's trace."""
        self.is_new |= event == "connection.connect_tcp.started"
        self.was_answered |= event == "http11.receive_response_headers.complete"


class _Answer:
    """One answer as it comes in."""

    def __init__(self) -> None:
        self.text_times: list[float] = []
        self.finished: float | None = None
        self.finish_reason = ""
        self.usage: Usage | None = None

    def add(self, chunk: Chunk, came: float) -> None:
        if chunk.error is not None:
            raise _Refused(f"in the stream: {_message(msgspec.json.encode({'error': chunk.error}))}")
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices:
            if choice.text or (choice.delta and choice.delta.content):
                self.text_times.append(came)
                self.finished = came
            if choice.finish_reason:
                self.finish_reason, self.finished = choice.finish_reason, came

    def record(self, *, arrived: float, sent: float, ended: float, error: str, limit: int) -> Record:
        usage, chunks = self.usage, len(self.text_times)
        counted_by: CountedBy
        if usage is not None:
            tokens, counted_by = usage.completion_tokens, "usage"
        elif self.finish_reason == "length" and limit and not error:
            tokens, counted_by = limit, "limit"
        else:
            tokens, counted_by = chunks, "chunks"
        details = usage.prompt_tokens_details or {} if usage else {}
        return Record(
            arrived=arrived,
            sent=sent,
            ended=ended,
            text_times=tuple(self.text_times),
            finished=self.finished,
            prompt_tokens=usage.prompt_tokens if usage else 0,
            output_tokens=tokens,
            cached_tokens=details.get("cached_tokens") or 0,
            counted_by=counted_by,
            finish_reason=self.finish_reason,
            error=error,
        )


def _checked(url: str) -> httpx.URL:
    wrong = NothingToTest(f"{url!r} is no URL of a server", allowed="such as http://127.0.0.1:8000")
    try:
        parts = urlsplit(url)
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise wrong from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise wrong
    return parsed


def _fault(error: BaseException) -> str:
    return type(error).__name__ if not str(error) else f"{type(error).__name__}: {error}"


def _message(body: bytes) -> str:
    """What an error's body says, in any of the forms in which servers say it."""
    with contextlib.suppress(ValueError, TypeError):
        found: Any = msgspec.json.decode(body)
        for name in ("error", "message", "detail"):
            if isinstance(found, dict) and name in found:
                found = found[name]
        return str(found)[:_EXCERPT]
    return body.decode("utf-8", "replace").strip()[:_EXCERPT] or "without a word"


def refuse_if_all_failed(records: Sequence[Record]) -> None:
    """Raise NothingToTest with the commonest fault if no request was answered at all."""
    if records and not any(record.is_ok for record in records):
        faults = [record.error for record in records]
        commonest = max(set(faults), key=faults.count)
        raise NothingToTest(
            f"none of {len(records)} requests was answered; {faults.count(commonest)} ×: {commonest}"
        )
