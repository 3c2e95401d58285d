"""Sixteen streams at once say what each says alone, wherever the model is sure enough for that to be owed."""

from __future__ import annotations

import asyncio

import openai
import pytest
from agreement import agreed_tokens, stream
from asking import is_idle

from labsupport.pocket.skills import samples


@pytest.fixture(scope="module")
def prompts():
    """Questions of two skills, of different lengths, that no training saw."""
    chosen = [*samples("glossary", seed=11, count=8), *samples("size", seed=11, count=8)]
    return [sample.prompt for sample in chosen]


def test_sixteen_streams_at_once_say_what_each_says_alone_above_the_margin(server, prompts):
    async def both():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            alone = [await stream(client, prompt, max_tokens=32) for prompt in prompts]
            together = await asyncio.gather(*(stream(client, prompt, max_tokens=32) for prompt in prompts))
        return alone, together

    alone, together = asyncio.run(both())

    assert agreed_tokens(list(zip(alone, together, strict=True))) >= 8 * len(prompts)
    assert is_idle(server)
