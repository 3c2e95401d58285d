"""A thousand clients that leave, and ten times too many that stay: memory stays flat, and nobody hangs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import httpx
import psutil
import pytest
from asking import ABORTED, ASK, KEY, is_idle, leave_after, wait_until
from pace import HealthWatch, slowness

CANCELS = 1000
PROMPT_TOKENS = "labsupport:prompt_tokens_total"
MEBIBYTE = 2**20


async def ask_and_leave(http: httpx.AsyncClient, draw: random.Random, *, patience_seconds: float) -> None:
    """One request, left at a random moment: before its first token, or between two."""
    body = {
        "model": "pocket",
        "messages": [{"role": "user", "content": "word " * draw.randrange(1, 80)}],
        "max_tokens": draw.randrange(20, 60),
        "n": draw.choice([1, 1, 1, 3]),
        "ignore_eos": True,
    }
    if draw.random() < 0.5:  # not streamed: nothing is heard before the end
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(draw.expovariate(1 / patience_seconds)):
                await http.post("/v1/chat/completions", json=body)
        return
    enough = draw.randrange(10)
    async with http.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as answer:
        async for _ in answer.aiter_lines():
            if not enough:
                return
            enough -= 1


async def leave(url: str, count: int, *, seed: int) -> None:
    """So many requests, sixteen at a time, each of them left."""
    draw = random.Random(seed)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as http:
        for _ in range(count // 16):
            patience_seconds = 0.05 * slowness()
            await asyncio.gather(
                *(ask_and_leave(http, draw, patience_seconds=patience_seconds) for _ in range(16))
            )


def resident_bytes(server) -> dict[str, int]:
    engine = server.get("/debug/engine").json()["pid"]
    return {
        "server": psutil.Process(server.pid).memory_info().rss,
        "engine": psutil.Process(engine).memory_info().rss,
    }


def test_a_thousand_random_cancels_leave_memory_flat_and_the_pool_empty(server):
    asyncio.run(leave(server.url, CANCELS // 5, seed=1))  # allocators take what they need once
    wait_until(lambda: is_idle(server), what="an idle engine")
    before = resident_bytes(server)
    files = psutil.Process(server.pid).num_fds()

    asyncio.run(leave(server.url, CANCELS, seed=2))

    wait_until(lambda: is_idle(server), what="an idle engine")
    after = resident_bytes(server)
    grown = {name: (after[name] - before[name]) / MEBIBYTE for name in before}
    assert all(mebibytes < 16 for mebibytes in grown.values()), grown  # 16 kB for each of them
    wait_until(lambda: psutil.Process(server.pid).num_fds() <= files + 4, what="the end of their connections")
    assert server.metrics()[ABORTED] > CANCELS / 4


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_in_the_middle_of_its_prompts_frees_its_slots_within_seconds(
    server, http, stream, number
):
    draw = random.Random(f"{number} {stream}")  # so that the prompts share nothing
    prompts = [" ".join(f"{draw.randrange(10**5, 10**6)}" for _ in range(55)) for _ in range(16)]
    counts = [http.post("/tokenize", json={"prompt": each}).json()["count"] for each in prompts]
    assert min(counts) > 300
    body = {"model": "pocket", "prompt": prompts, "max_tokens": 60, "ignore_eos": True, "stream": stream}
    before, pace = server.metrics(), slowness()

    leave_after(
        server, body, route="/v1/completions", until=lambda: server.get("/debug/engine").json()["running"]
    )

    begin = time.monotonic()
    wait_until(lambda: is_idle(server), seconds=300, what="an idle engine")
    assert (time.monotonic() - begin) / max(pace, slowness()) < 5
    wait_until(lambda: server.metrics()[ABORTED] == before[ABORTED] + 16, what="the count of aborts")
    # A prompt is counted with its first token, and not all had come to that
    assert server.metrics()[PROMPT_TOKENS] - before[PROMPT_TOKENS] < sum(counts)


def test_ten_times_too_many_clients_are_all_answered_while_health_answers(small_server):
    """Two slots and two places to wait, and forty clients who come again as soon as they are refused."""
    headers = {"Authorization": f"Bearer {KEY}"}
    statuses, wrong = [], []

    async def client(http: httpx.AsyncClient, until: float) -> None:
        body = {"model": "pocket", "messages": ASK, "max_tokens": 16, "ignore_eos": True}
        while time.monotonic() < until:
            answer = await http.post("/v1/chat/completions", json=body)
            statuses.append(answer.status_code)
            if answer.status_code == 200:
                if answer.json()["usage"]["completion_tokens"] != 16:
                    wrong.append(answer.text)
            elif answer.status_code not in {429, 503} or int(answer.headers["Retry-After"]) < 1:
                wrong.append(answer.text)
            await asyncio.sleep(0.05 if answer.status_code == 200 else 0.2)

    async def everybody() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=small_server.url, headers=headers, timeout=300, limits=limits
        ) as http:
            until = time.monotonic() + 8
            await asyncio.gather(*(client(http, until) for _ in range(40)))

    with HealthWatch(small_server.url) as watch:
        asyncio.run(everybody())

    assert wrong == []
    assert set(statuses) == {200, 429}
    assert statuses.count(200) > 4
    assert watch.asked > 4
    assert watch.slowest < 2
    wait_until(lambda: is_idle(small_server), what="an idle engine")
