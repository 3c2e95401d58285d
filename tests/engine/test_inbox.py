"""A reader that falls behind loses nothing, and gets in one piece what came meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from labsupport.engine.inbox import Inbox
from labsupport.engine.messages import Delta, TokenLogprob


def _delta(token: int, **more) -> Delta:
    entry = TokenLogprob(token=token, text=b"%d" % token, logprob=-1.0)
    return Delta(request_id="r", tokens=(token,), text=f"{token} ", logprobs=(entry,), **more)


def test_what_came_meanwhile_is_one_delta():
    async def read() -> list[Delta]:
        inbox = Inbox()
        inbox.put(_delta(1, cached_tokens=5))
        first = await inbox.get()
        inbox.put(_delta(2, cached_tokens=5))
        inbox.put(_delta(3, cached_tokens=5, queue_seconds=0.5, finish_reason="stop"))
        return [first, await inbox.get()]

    first, rest = asyncio.run(read())
    assert first == _delta(1, cached_tokens=5)
    assert (rest.tokens, rest.text, [entry.token for entry in rest.logprobs]) == ((2, 3), "2 3 ", [2, 3])
    assert (rest.finish_reason, rest.cached_tokens, rest.queue_seconds) == ("stop", 5, 0.5)


def test_a_reader_that_waits_gets_each_as_it_comes():
    async def read() -> list[tuple[int, ...]]:
        inbox, seen = Inbox(), []

        async def reader() -> None:
            while len(seen) < 3:
                seen.append((await inbox.get()).tokens)

        reading = asyncio.create_task(reader())
        for token in range(3):
            await asyncio.sleep(0.01)
            inbox.put(_delta(token))
        await reading
        return seen

    assert asyncio.run(read()) == [(0,), (1,), (2,)]


def test_what_came_before_a_failure_is_read_before_it():
    async def read() -> None:
        inbox = Inbox()
        for token in range(2):
            inbox.put(_delta(token))
        inbox.put(Delta(request_id="r", finish_reason="error", error="no room"))
        assert (await inbox.get()).tokens == (0, 1)
        assert (await inbox.get()).error == "no room"
        inbox.put(_delta(9))
        inbox.put(RuntimeError("it died"))
        assert (await inbox.get()).tokens == (9,)
        with pytest.raises(RuntimeError, match="it died"):
            await inbox.get()

    asyncio.run(asyncio.wait_for(read(), 10))
