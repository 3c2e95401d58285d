"""Sixteen streams at once say what each says alone, wherever the model is sure enough for that to be owed.

A sequence's logits differ a little with what else is in the batch (other kernels, other rounding), so where
the two best tokens are closer than that, either may come. The difference is measured here first.
"""

from __future__ import annotations

import asyncio

import openai
import pytest
from asking import is_idle

from labsupport.pocket.skills import samples

OPTIONS = {
    "model": "pocket",
    "temperature": 0,
    "max_tokens": 32,
    "logprobs": True,
    "top_logprobs": 2,
    "stream": True,
}


@pytest.fixture(scope="module")
def prompts():
    """Questions of two skills, of different lengths, that no training saw."""
    chosen = [*samples("glossary", seed=11, count=8), *samples("size", seed=11, count=8)]
    return [sample.prompt for sample in chosen]


async def stream(client, prompt):
    """The tokens of one answer with the natural-log probabilities of the two best at each place."""
    entries = []
    chunks = await client.chat.completions.create(messages=[{"role": "user", "content": prompt}], **OPTIONS)
    async for chunk in chunks:
        if chunk.choices and chunk.choices[0].logprobs:
            entries += chunk.choices[0].logprobs.content
    return [(bytes(e.bytes), *(top.logprob for top in e.top_logprobs)) for e in entries]


def common_length(one, other):
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a[0] != b[0]), min(len(one), len(other)))


def test_sixteen_streams_at_once_say_what_each_says_alone_above_the_margin(server, prompts):
    async def both():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            alone = [await stream(client, prompt) for prompt in prompts]
            together = await asyncio.gather(*(stream(client, prompt) for prompt in prompts))
        return alone, together

    alone, together = asyncio.run(both())

    # Given the margin: twice the largest change of a best token's log probability while the texts agree
    agreed = [
        (one[place], other[place])
        for one, other in zip(alone, together, strict=True)
        for place in range(common_length(one, other))
    ]
    margin = 2 * max(abs(a[1] - b[1]) for a, b in agreed)
    # Then texts part only at a place where the two best were closer than that
    for one, other in zip(alone, together, strict=True):
        place = common_length(one, other)
        if place < max(len(one), len(other)):
            assert place < len(one)
            assert one[place][1] - one[place][2] <= margin
    # and the margin is small enough, and the agreement long enough, for that to mean something
    assert margin < 0.5
    assert len(agreed) >= 8 * len(prompts)
    assert is_idle(server)
