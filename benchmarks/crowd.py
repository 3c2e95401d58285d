"""Ten times as many callers as there are slots, beside as many as there are: what is answered, and how soon.

Who is refused comes again when `Retry-After` says, as the `openai` client does. Meanwhile somebody asks ten
times a second whether the server is alive.

Right means: a crowd costs those who are accepted a tenth of their tokens a second at most, the slowest
hundredth of the answers about health takes 100 ms at most, and everybody is answered or told when to come
again.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import httpx

from benchmarks import host
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.process import Running
from benchmarks.options import Options
from benchmarks.pairs import measure_pairs
from benchmarks.results import Series
from labsupport.errors import LabsupportError
from labsupport.loadtest import Distribution

MODEL = "synthetic-0.3b"
TIMES_AS_MANY = 10
SECONDS = 60.0
OUTPUT_TOKENS = 64
LONGEST_ANSWER_SECONDS = 600.0


class Crowd:
    """Callers that ask again and again until a moment, and what they were told.

    health_seconds: each answer about health took so long. problems: what nobody should be told.
    """

    def __init__(self, http: httpx.AsyncClient, model: str, draw: random.Random) -> None:
        self._http = http
        self._model = model
        self._draw = draw
        self.answered = 0
        self.refused = 0
        self.health_seconds: list[float] = []
        self.problems: list[str] = []

    async def run(self, callers: int, seconds: float) -> float:
        """Output tokens per second of what `callers` at once were answered."""
        begin, answered = time.monotonic(), self.answered
        until = begin + seconds
        health = asyncio.create_task(self._watch_health(until))
        await asyncio.gather(*(self._call(until) for _ in range(callers)), health)
        return (self.answered - answered) * OUTPUT_TOKENS / (time.monotonic() - begin)

    async def _call(self, until: float) -> None:
        while time.monotonic() < until:
            body = {
                "model": self._model,
                "prompt": f"{self._draw.random()} ".ljust(128, "x"),
                "max_tokens": OUTPUT_TOKENS,
                "ignore_eos": True,
            }
            try:
                answer = await self._http.post("/v1/completions", json=body)
            except httpx.HTTPError as error:
                self.problems.append(f"no answer: {error!r}")
                continue
            if answer.status_code == 200:
                self.answered += 1
            elif answer.status_code in {429, 503} and (wait := int(answer.headers.get("Retry-After", 0))):
                self.refused += 1
                come = time.monotonic() + wait * self._draw.uniform(1.0, 1.1)
                await asyncio.sleep(min(come, until) - time.monotonic())
            else:
                self.problems.append(f"{answer.status_code}: {answer.text[:300]}")

    async def _watch_health(self, until: float) -> None:
        while time.monotonic() < until:
            begin = time.monotonic()
            answer = await self._http.get("/health/live")
            self.health_seconds.append(time.monotonic() - begin)
            if answer.status_code != 200:
                self.problems.append(f"health answered {answer.status_code}")
            await asyncio.sleep(0.1)


def http_for_a_crowd(url: str) -> httpx.AsyncClient:
    """With as many connections as there are callers, and patience."""
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=LONGEST_ANSWER_SECONDS, limits=limits, trust_env=False)


def run(options: Options, *, is_quiet: bool, model: str = MODEL, seconds: float = SECONDS) -> bool:
    """Measure what is missing; whether all is there now."""
    setup, ours = options.setup(model), Ours()
    callers = {f"{count} callers": count for count in (TIMES_AS_MANY * setup.slots, setup.slots)}
    crowded, alone = callers
    series = Series.open(
        options.results,
        f"crowd-{model}",
        experiment="crowd",
        settings={
            **host.identity(),
            "order": [crowded, alone],
            "model": model,
            "gguf_sha256": host.file_digest(setup.gguf),
            "threads": setup.threads,
            "slots": setup.slots,
            "seconds_of_asking": seconds,
        },
        host=host.description(),
    )
    if len(series.pairs) >= options.pairs or options.budget.is_spent:
        return len(series.pairs) >= options.pairs
    with Running(ours, setup) as running:

        async def ask(name: str, seed: int) -> dict[str, Any]:
            async with http_for_a_crowd(running.url) as http:
                crowd = Crowd(http, str(ours.model_name(setup)), random.Random(f"crowd {name} {seed}"))
                rate = await crowd.run(callers[name], seconds)
            if crowd.problems:
                raise LabsupportError(f"{name}: {crowd.problems[0]} ({len(crowd.problems)} such)")
            health = Distribution.of(crowd.health_seconds)
            return {
                "figures": {
                    "output_tokens_per_second": rate,
                    "health_p99": health.p99,
                    "health_longest": health.most,
                },
                "answered": crowd.answered,
                "refused": crowd.refused,
                "health_asked": health.count,
            }

        return measure_pairs(
            series,
            (crowded, alone),
            lambda name, seed: asyncio.run(ask(name, seed)),
            wanted=options.pairs,
            budget=options.budget,
            is_quiet=is_quiet,
        )
