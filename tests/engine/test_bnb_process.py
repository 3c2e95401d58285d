"""The bnb runner in an engine process of its own, as the server runs it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from labsupport import models
from labsupport.engine import offline
from labsupport.engine.client import EngineClient, EngineFailed
from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import SamplingParams

GREEDY = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
PROMPTS = {"one": [5, 6, 7], "two": [9, 10, 11, 12, 13, 14]}
SETTINGS = {"quantization": "fp32", "slots": 2, "prefix_slots": 1, "context_tokens": 64, "threads": 1}


def test_what_the_process_streams_is_what_the_runner_says_and_leaving_frees_the_slot():
    checkpoint = models.checkpoint("pocket")
    expected = offline.generate(checkpoint, PROMPTS.values(), GREEDY, **SETTINGS)

    async def ask(client: EngineClient, name: str) -> tuple[int, ...]:
        stream = client.generate(PROMPTS[name], GREEDY, request_id=name)
        return tuple([token async for delta in stream for token in delta.tokens])

    async def main() -> None:
        async with await EngineClient.start(EngineConfig(model=str(checkpoint), **SETTINGS)) as client:
            assert (client.info.engine, client.info.context_tokens) == ("bnb", 64)
            # 6 layers × 3 rows of 72 cells (64 and scratch, aligned) × 2 KV heads × 64 × key and value × 4 B
            assert client.info.kv_bytes == 6 * 3 * 72 * 2 * 64 * 2 * 4
            # Given one that leaves after its first token
            async with aclosing(client.generate([1, 2], GREEDY, request_id="leaves")) as stream:
                async for _ in stream:
                    break
            # When two others ask at once
            answers = await asyncio.gather(*(ask(client, name) for name in PROMPTS))
            # Then they are told what the runner says without a process, and nothing is held after it
            assert answers == [text.tokens for text in expected]
            integrity = await client.inspect()
            assert (integrity.violations, integrity.running, integrity.used_cells) == ((), 0, 0)

    asyncio.run(main())


def test_a_checkpoint_that_cannot_be_served_is_one_clear_error(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')

    async def main() -> None:
        with pytest.raises(EngineFailed, match="the architecture"):
            await EngineClient.start(EngineConfig(model=str(tmp_path)))

    asyncio.run(main())
