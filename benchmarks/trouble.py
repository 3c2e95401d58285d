"""How soon the engine is free once a client has left, and how soon its crash is told and mended.

Right means: whoever leaves holds no slot for longer than a second; all whose requests die with the engine are
told within two; and a round in which somebody was told anything else counts for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import httpx

from benchmarks import host
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.process import Running
from benchmarks.options import Options
from benchmarks.pairs import measure_pairs
from benchmarks.results import Series
from benchmarks.words import Words
from labsupport.errors import LabsupportError

MODEL = "synthetic-0.3b"
ROUNDS = 10
PROMPT_TOKENS, LONG_PROMPT_TOKENS, ANSWER_TOKENS = 128, 1200, 800
LATEST_SECONDS = 0.5
"""After so long at most, in a request, the trouble begins."""
LONGEST_WAIT_SECONDS = 120.0
_POLL_SECONDS = 0.005

LEAVING: dict[str, dict[str, Any]] = {
    "a client leaves its stream": {"stream": True},
    "a client leaves before its whole answer": {},
    "a client leaves four choices": {"n": 4},
    "a client leaves in the middle of its prompt": {"stream": True},
}
"""What leaves, and the fields of its request."""
TOLD, SERVED = "a crash: the last of 16 callers is told", "a crash: the next request is answered"


def run(options: Options, *, is_quiet: bool, model: str = MODEL, rounds: int = ROUNDS) -> bool:
    """Measure what is missing; whether all is there now."""
    setup, ours = options.setup(model), Ours()
    series = Series.open(
        options.results,
        f"trouble-{model}",
        experiment="trouble",
        settings={
            **host.identity(),
            "order": ["ours"],
            "model": model,
            "gguf_sha256": host.file_digest(setup.gguf),
            "threads": setup.threads,
            "slots": setup.slots,
            "tokens": [PROMPT_TOKENS, LONG_PROMPT_TOKENS, ANSWER_TOKENS],
        },
        host=host.description(),
    )
    if len(series.pairs) >= rounds or options.budget.is_spent:
        return len(series.pairs) >= rounds
    words = Words(setup.gguf)
    with Running(ours, setup) as running:
        name = str(ours.model_name(setup))

        def measure(_: str, seed: int) -> dict[str, Any]:
            chance = random.Random(f"trouble {seed}")
            return {"figures": asyncio.run(Round(running.url, name, words, chance).figures(setup.slots))}

        return measure_pairs(
            series, ("ours",), measure, wanted=rounds, budget=options.budget, is_quiet=is_quiet
        )


class Round:
    """Everybody's troubles once, on a server that is idle before each of them."""

    def __init__(self, url: str, model: str, words: Words, chance: random.Random) -> None:
        self._url = url
        self._watch = self._http()
        self._model = model
        self._words = words
        self._chance = chance

    async def figures(self, callers: int) -> dict[str, float]:
        """Seconds for each kind of trouble."""
        async with self._watch:
            found = {kind: await self._leave(kind) for kind in LEAVING}
            return found | await self._crash(callers, self._chance.choice([signal.SIGKILL, signal.SIGABRT]))

    async def _leave(self, kind: str) -> float:
        """From the moment at which a client hangs up to the one at which the engine says that it is idle."""
        fields, is_long = LEAVING[kind], "prompt" in kind
        async with self._http() as http:
            body = self._body(LONG_PROMPT_TOKENS if is_long else PROMPT_TOKENS) | fields
            asking = asyncio.create_task(_last_event(http, body))
            await self._until(lambda state: state["running"] == fields.get("n", 1), "a request that runs")
            await asyncio.sleep(self._chance.uniform(0.0, LATEST_SECONDS))
            if asking.done():
                raise LabsupportError(f"{kind}: its answer ended first")
            begin = time.monotonic()
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
        await self._until(_is_idle, "an idle engine")
        return time.monotonic() - begin

    async def _crash(self, callers: int, how: signal.Signals) -> dict[str, float]:
        """What passes, once the engine is killed, until all callers know and until the next one is served."""
        async with self._http() as http:
            told = [asyncio.create_task(self._told(http)) for _ in range(callers)]
            state = await self._until(lambda state: state["running"] == callers, "all callers at once")
            await asyncio.sleep(self._chance.uniform(0.0, LATEST_SECONDS))
            begin = time.monotonic()
            os.kill(state["pid"], how)
            served = asyncio.create_task(self._served())
            return {
                TOLD: max(await asyncio.gather(*told)) - begin,
                SERVED: await served - begin,
            }

    async def _told(self, http: httpx.AsyncClient) -> float:
        """The moment at which a stream says that its engine died."""
        last = await _last_event(http, self._body(PROMPT_TOKENS) | {"stream": True})
        if "engine_died" not in last:
            raise LabsupportError(f"a request that died with the engine was told {last!r}")
        return time.monotonic()

    async def _served(self) -> float:
        """The moment at which a new request is answered."""
        body = self._body(2) | {"max_tokens": 1}
        async with asyncio.timeout(LONGEST_WAIT_SECONDS):
            while (await self._watch.post("/v1/completions", json=body)).status_code != 200:
                await asyncio.sleep(_POLL_SECONDS)
        return time.monotonic()

    async def _until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """What the engine says of itself as soon as it says this."""
        try:
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                while True:
                    answer = await self._watch.get("/debug/engine")
                    if answer.status_code == 200 and holds(state := answer.json()):
                        return state
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise LabsupportError(f"{what} did not come within {LONGEST_WAIT_SECONDS:g} s") from error

    def _body(self, prompt_tokens: int) -> dict[str, Any]:
        return {
            "model": self._model,
            "prompt": self._words.text(prompt_tokens, self._chance),
            "max_tokens": ANSWER_TOKENS,
            "ignore_eos": True,
        }

    def _http(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(
            base_url=self._url, timeout=LONGEST_WAIT_SECONDS, limits=limits, trust_env=False
        )


async def _last_event(http: httpx.AsyncClient, body: dict[str, Any]) -> str:
    """Read an answer to its end; its last line but for the mark of the end."""
    last = ""
    async with http.stream("POST", "/v1/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            last = line if line and line != "data: [DONE]" else last
    return last


def _is_idle(state: dict[str, Any]) -> bool:
    return bool(state["running"] == state["waiting"] == state["used_cells"] == 0)
