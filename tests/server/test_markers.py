"""What one caller wrote never turns up in another's answer."""

from __future__ import annotations

import asyncio
import json
import random

import httpx
import pytest
from asking import is_idle, wait_until

from labsupport.pocket.skills import samples

CALLERS = 48


def said(answer: str, *, streamed: bool) -> str:
    """The text of an answer's only choice, from its JSON or its events."""
    if not streamed:
        return json.loads(answer)["choices"][0]["message"]["content"]
    events = [line.removeprefix("data: ") for line in answer.split("\n") if line]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    return "".join(delta.get("content", "") for delta in deltas)


@pytest.mark.parametrize("streamed", [False, True])
def test_unique_markers_of_many_at_once_never_cross(server, streamed):
    """Each asks for a value that stands in its own list and in nobody else's."""
    asked = {sample.answer: sample.prompt for sample in samples("recall", seed=23, count=3 * CALLERS)}
    mine = [
        (answer, prompt)
        for answer, prompt in asked.items()
        if len(answer) > 3 and not any(answer in other for other in asked.values() if other is not prompt)
    ][:CALLERS]
    assert len(mine) > 16
    random.Random(5).shuffle(mine)

    async def ask(http: httpx.AsyncClient, prompt: str) -> str:
        body = {
            "model": "pocket",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 24,
            "temperature": 0,
            "stream": streamed,
        }
        answer = await http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200
        return said(answer.text, streamed=streamed)

    async def everybody() -> list[str]:
        async with httpx.AsyncClient(base_url=server.url, timeout=400) as http:
            return await asyncio.gather(*(ask(http, prompt) for _, prompt in mine))

    answers = asyncio.run(everybody())

    for (marker, _), answer in zip(mine, answers, strict=True):
        assert not [other for other, _ in mine if other != marker and other in answer]
    own = sum(marker in answer for (marker, _), answer in zip(mine, answers, strict=True))
    assert own > len(mine) / 2  # the model is not always right, but nearly
    wait_until(lambda: is_idle(server), what="an idle engine")
