"""Ten times as many callers as there are slots, for a while, on a model that is slow enough to be crowded."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

import httpx

import labsupport

SLOTS = 16
CROWD = 10 * SLOTS
OUTPUT_TOKENS = 64
LONGEST_HEALTH_SECONDS = 2.0
LONGEST_ANSWER_SECONDS = 600.0


@dataclass
class Crowded:
    """What a crowd was told. `tokens_per_second`: of what was accepted, without and with the crowd."""

    model: str
    tokens_per_second: tuple[float, float]
    answered: int
    refused: int
    slowest_health_seconds: float
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        alone, crowded = self.tokens_per_second
        lines = [
            f"{self.model}: {SLOTS} callers {alone:.0f} tokens/s, {CROWD} callers {crowded:.0f} tokens/s "
            f"({crowded / alone:.0%})",
            f"  {self.answered} answered, {self.refused} refused, "
            f"slowest health {self.slowest_health_seconds:.2f} s",
            f"violations: {len(self.violations)}",
        ]
        return "\n".join([*lines, *(f"  {violation}" for violation in self.violations[:20])])


class Crowd:
    """Callers that ask again and again until a moment, and what they were told."""

    def __init__(self, http: httpx.AsyncClient, model: str, draw: random.Random) -> None:
        self._http = http
        self._model = model
        self._draw = draw
        self.answered = 0
        self.refused = 0
        self.slowest_health = 0.0
        self.violations: list[str] = []

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
                self.violations.append(f"no answer: {error!r}")
                continue
            if answer.status_code == 200:
                self.answered += 1
            elif answer.status_code in {429, 503} and int(answer.headers.get("Retry-After", 0)) >= 1:
                self.refused += 1
                await asyncio.sleep(self._draw.uniform(0.5, 1.5))
            else:
                self.violations.append(f"{answer.status_code}: {answer.text[:300]}")

    async def _watch_health(self, until: float) -> None:
        while time.monotonic() < until:
            begin = time.monotonic()
            answer = await self._http.get("/health/live")
            seconds = time.monotonic() - begin
            self.slowest_health = max(self.slowest_health, seconds)
            if answer.status_code != 200 or seconds > LONGEST_HEALTH_SECONDS:
                self.violations.append(f"health answered {answer.status_code} after {seconds:.1f} s")
            await asyncio.sleep(0.1)


def overload(model: str, *, seconds: float, seed: int) -> Crowded:
    """As many callers as slots for half of `seconds`, then ten times as many for `seconds`."""

    async def both(url: str) -> tuple[Crowd, float, float]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=LONGEST_ANSWER_SECONDS, limits=limits) as http:
            crowd = Crowd(http, model, random.Random(seed))
            return crowd, await crowd.run(SLOTS, seconds / 2), await crowd.run(CROWD, seconds)

    with labsupport.serve(model, "q4_k_m", slots=SLOTS, context=512) as server:
        crowd, alone, crowded = asyncio.run(both(server.url))
    return Crowded(
        model, (alone, crowded), crowd.answered, crowd.refused, crowd.slowest_health, crowd.violations
    )
