"""Callers of every kind, good and bad, and what each of them must be told.

Right means: a request ends in one of the outcomes below, or it is a violation; which of them it was does not
matter, since faults are being injected all the while.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

Usage = tuple[int, int, int]
"""Tokens in, cached and out, as `usage` says and the ledger should."""
ENGINE_CODES = {"engine_died", "engine_unavailable", "engine_restarting", "engine_loading"}
BAD: list[tuple[str, bytes]] = [
    ("/v1/completions", b'{"model":"pocket","prompt":[-1]}'),
    ("/v1/completions", b'{"model":"pocket","prompt":[99999999]}'),
    ("/v1/completions", b'{"model":"pocket","prompt":[' + b"-1," * 300_000 + b"-1]}"),
    ("/v1/completions", b'{"model":"pocket","prompt":"' + b"word " * 5000 + b'"}'),
    ("/v1/completions", b'{"model":"pocket","prompt":"x","n":1000}'),
    ("/v1/chat/completions", b'{"model":"pocket","messages":' + b"[" * 50_000),
    ("/v1/chat/completions", b'{"model":"pocket","messages":[{"role":"user","content":"\\ud800"}]}'),
    ("/v1/chat/completions", b'{"model":"pocket","messages":[' + b"{}," * 100_000 + b"{}]}"),
    ("/tokenize", b'{"prompt":"' + b"<|im_end|>" * 50_000 + b'"}'),
]


class Violation(Exception):
    """An answer, or the lack of one, that no fault excuses."""


class Callers:
    """Makes callers and keeps what became of them.

    finished: what each complete answer's usage was, by its id. outcomes: how often each came.
    """

    def __init__(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        self._http = http
        self._draw = draw
        self.finished: dict[str, Usage] = {}
        self.outcomes: dict[str, int] = {}
        self.violations: list[str] = []

    async def one(self) -> None:
        """A caller of a kind that is drawn, from its request to its outcome."""
        kinds: list[tuple[Callable[[], Awaitable[str]], float]] = [
            (self._whole, 4),
            (self._stream, 4),
            (self._leaves, 2),
            (self._reads_slowly, 0.5),
            (self._wants_a_form, 0.5),
            (self._is_bad, 1),
        ]
        (kind,) = self._draw.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        await self._judged(kind)

    async def crowd(self, count: int) -> None:
        """So many good callers at the same moment."""
        await asyncio.gather(*(self._judged(self._whole) for _ in range(count)))

    async def _judged(self, kind: Callable[[], Awaitable[str]]) -> None:
        try:
            outcome = await kind()
        except Violation as violation:
            self.violations.append(f"{kind.__name__}: {violation}")
        except httpx.HTTPError as error:
            self.violations.append(f"{kind.__name__}: no answer: {error!r}")
        else:
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def _body(self, **options: Any) -> dict[str, Any]:
        """A good request; some share a long beginning, some are long, most are neither."""
        shared = "The same beginning for many. " * self._draw.choice([0, 0, 8])
        words = "word " * self._draw.choice([1, 1, 5, 5, 20, 20, 120, 400])
        return {
            "model": "pocket",
            "messages": [{"role": "user", "content": f"{shared}{self._draw.random()} {words}"}],
            "max_tokens": self._draw.choice([1, 8, 16, 40]),
            "n": self._draw.choice([1, 1, 1, 2]),
            "ignore_eos": True,
            "logprobs": self._draw.random() < 0.2,
            **options,
        }

    async def _whole(self) -> str:
        body = self._body()
        answer = await self._http.post("/v1/chat/completions", json=body)
        if answer.status_code != 200:
            return refused(answer)
        said = answer.json()
        self._finish(said["id"], said["usage"], body)
        if [choice["finish_reason"] for choice in said["choices"]] != ["length"] * body["n"]:
            raise Violation(f"not every choice ended: {answer.text[:300]}")
        return "answered"

    async def _stream(self, *, pause_seconds: float = 0.0) -> str:
        body = self._body(stream=True, stream_options={"include_usage": True})
        async with self._http.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                await answer.aread()
                return refused(answer)
            events = []
            async for line in answer.aiter_lines():
                if line:
                    events.append(line.removeprefix("data: "))
                    await asyncio.sleep(pause_seconds)
        if events[-1:] != ["[DONE]"]:
            error = json.loads(events[-1]).get("error", {}) if events else {}
            if error.get("code") not in ENGINE_CODES:
                raise Violation(f"a stream broke off after {len(events)} events: {events[-1:]}")
            return "told that the engine died"
        last = json.loads(events[-2])
        self._finish(last["id"], last["usage"], body)
        return "answered"

    async def _reads_slowly(self) -> str:
        return await self._stream(pause_seconds=0.2)

    async def _wants_a_form(self) -> str:
        """An answer that has to be one of three numbers, by a schema that is often new."""
        numbers = [self._draw.randrange(1000) for _ in range(3)]
        form = {"type": "json_schema", "json_schema": {"name": "number", "schema": {"enum": numbers}}}
        body = self._body(response_format=form, ignore_eos=False, max_tokens=40, n=1)
        answer = await self._http.post("/v1/chat/completions", json=body)
        if answer.status_code != 200:
            return refused(answer)
        said = answer.json()
        if said["choices"][0]["message"]["content"] not in map(str, numbers):
            raise Violation(f"none of {numbers}: {answer.text[:300]}")
        self.finished[said["id"]] = used(said["usage"])
        return "answered in its form"

    async def _leaves(self) -> str:
        body = self._body(stream=self._draw.random() < 0.5)
        try:
            async with asyncio.timeout(self._draw.expovariate(1 / 0.2)):
                await self._http.post("/v1/chat/completions", json=body)
        except TimeoutError:
            return "left"
        return "would have left"

    async def _is_bad(self) -> str:
        path, content = self._draw.choice(BAD)
        headers = {"Content-Type": "application/json"}
        answer = await self._http.post(path, content=content, headers=headers)
        if answer.status_code == 400 and answer.json()["error"]["message"]:
            return "refused as bad"
        return refused(answer)

    def _finish(self, id: str, usage: dict[str, Any], body: dict[str, Any]) -> None:
        self.finished[id] = used(usage)
        if usage["completion_tokens"] != body["n"] * body["max_tokens"]:
            raise Violation(f"asked for {body['n']} × {body['max_tokens']} tokens, got {usage}")


def used(usage: dict[str, Any]) -> Usage:
    """What an answer's `usage` says."""
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return usage["prompt_tokens"], cached, usage["completion_tokens"]


def refused(answer: httpx.Response) -> str:
    """Why a good request was not answered. Raises Violation for a reason that is none."""
    if answer.status_code == 503 and answer.json()["error"]["code"] == "engine_died":
        return "told that the engine died"
    if answer.status_code in {429, 503} and int(answer.headers.get("Retry-After", 0)) >= 1:
        return "asked to come again"
    raise Violation(f"{answer.status_code}: {answer.text[:300]}")
