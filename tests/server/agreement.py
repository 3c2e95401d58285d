"""Whether greedy answers agree as far as that is owed.

A sequence's logits differ a little with what else is in the batch and with where its prefix came from (other
kernels, other rounding), so where the two best tokens are closer than that, either may come. The difference
is measured on the answers themselves.
"""

from __future__ import annotations

import openai

Entry = tuple[bytes, float, float]
"""A token with the natural-log probabilities of the two best at its place."""


async def stream(client: openai.AsyncOpenAI, prompt: str, **options) -> list[Entry]:
    """One greedy answer, streamed."""
    entries = []
    chunks = await client.chat.completions.create(
        model="pocket",
        messages=[{"role": "user", "content": prompt}],
        temperature=0,
        logprobs=True,
        top_logprobs=2,
        stream=True,
        **options,
    )
    async for chunk in chunks:
        if chunk.choices and chunk.choices[0].logprobs:
            entries += chunk.choices[0].logprobs.content
    return [(bytes(e.bytes), *(top.logprob for top in e.top_logprobs)) for e in entries]


def agreed_tokens(pairs: list[tuple[list[Entry], list[Entry]]]) -> int:
    """How many tokens the answers of each pair share from their beginning, over all pairs.

    Fails the test if two part where the best token was further ahead than the margin: twice the largest
    change of a best token's log probability while they agree.
    """
    agreed = [
        (one[place], other[place]) for one, other in pairs for place in range(_common_length(one, other))
    ]
    margin = 2 * max(abs(a[1] - b[1]) for a, b in agreed)
    assert margin < 0.5, "too wide to mean anything"
    for one, other in pairs:
        place = _common_length(one, other)
        if place < max(len(one), len(other)):
            assert place < len(one)
            assert one[place][1] - one[place][2] <= margin
    return len(agreed)


def _common_length(one: list[Entry], other: list[Entry]) -> int:
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a[0] != b[0]), min(len(one), len(other)))
