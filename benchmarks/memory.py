"""What the engine's process holds in memory, against what it must; and whether that grows with requests.

What it must hold: the weights, the KV cache and the compute buffer, as llama.cpp reports them. What is over
that is Python, its libraries, and llama.cpp's own bookkeeping. A file's pages that were read count as held.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import psutil

from benchmarks import host
from benchmarks.contenders.contender import Setup
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.process import Running
from benchmarks.load_process import run_load
from benchmarks.options import Options
from benchmarks.pairs import measure_pairs
from benchmarks.results import Series
from benchmarks.words import Words
from labsupport.engine.client import EngineClient
from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import SamplingParams
from labsupport.loadtest import Prompt

MODELS = ("pocket", "synthetic-0.3b")
REQUESTS = {"short": 2000, "all": 10_000}
BLOCKS = 20
PROMPT_TOKENS, ANSWER_TOKENS, CLIENTS = 8, 4, 16


def run(options: Options, *, is_quiet: bool) -> bool:
    """Measure what is missing; whether all is there now. (It needs no quiet machine.)"""
    alone: dict[str, Any] = {"wanted": 1, "budget": options.budget, "is_quiet": is_quiet}
    for model in options.model or MODELS:
        setup = options.setup(model)
        series = _series(options, setup, f"memory-{model}", "memory", {})

        def measure(_: str, seed: int, setup: Setup = setup) -> dict[str, Any]:
            return {"figures": asyncio.run(engine_bytes(setup))}

        if not measure_pairs(series, ("ours",), measure, **alone):
            return False
    requests = options.requests or REQUESTS[options.set]
    setup = options.setup("pocket")
    series = _series(options, setup, "memory-growth-pocket", "memory-growth", {"requests": requests})

    def grow(_: str, seed: int) -> dict[str, Any]:
        return {"figures": growth(setup, requests, options.timeout)}

    return measure_pairs(series, ("ours",), grow, **alone)


async def engine_bytes(setup: Setup) -> dict[str, Any]:
    """Resident bytes of the engine's process once every slot was used, and what it must hold, in bytes."""
    config = EngineConfig(
        model=str(setup.gguf),
        engine="llama",
        threads=setup.threads,
        slots=setup.slots,
        context_tokens=setup.context_tokens,
        n_gpu_layers=0,
    )
    params = SamplingParams(max_tokens=16, temperature=0, ignore_eos=True)
    chance = random.Random(0)
    async with await EngineClient.start(config) as engine:

        async def one(number: int) -> None:
            prompt = [chance.randrange(300, engine.info.vocabulary_size) for _ in range(512)]
            async for _ in engine.generate(prompt, params, request_id=str(number)):
                pass

        async with asyncio.TaskGroup() as requests:
            for number in range(2 * setup.slots):
                requests.create_task(one(number))
        resident = psutil.Process(engine.info.pid).memory_info().rss
        must = engine.info.weights_bytes + engine.info.kv_bytes + engine.info.compute_bytes
        return {
            "resident_bytes": resident,
            "weights_bytes": engine.info.weights_bytes,
            "kv_bytes": engine.info.kv_bytes,
            "compute_bytes": engine.info.compute_bytes,
            "over_bytes": resident - must,
        }


def growth(setup: Setup, requests: int, timeout_seconds: float) -> dict[str, Any]:
    """Resident bytes of all of the server's processes after each block of requests."""
    ours, words, samples, answered = Ours(), Words(setup.gguf), [], 0
    with Running(ours, setup) as running:
        for block in range(BLOCKS):
            chance = random.Random(f"memory {block}")
            prompts = [
                Prompt(prompt=words.text(PROMPT_TOKENS, chance), max_tokens=ANSWER_TOKENS)
                for _ in range(max(1, requests // BLOCKS))
            ]
            done = run_load(
                running.url,
                prompts,
                clients=CLIENTS,
                seconds=None,
                model=ours.model_name(setup),
                extra=ours.extra(setup),
                timeout_seconds=timeout_seconds,
            )
            answered += done["summary"]["answered"]
            samples.append(running.resident_bytes())
    # The first quarter fills caches that have a bound: the prefix cache, the allocator's arenas.
    settled = samples[BLOCKS // 4]
    return {"answered": answered, "resident_bytes": samples, "growth_bytes": samples[-1] - settled}


def _series(options: Options, setup: Setup, name: str, experiment: str, more: dict[str, Any]) -> Series:
    return Series.open(
        options.results,
        name,
        experiment=experiment,
        settings={
            **host.identity(),
            "order": ["ours"],
            "model": setup.model,
            "gguf_sha256": host.file_digest(setup.gguf),
            "threads": setup.threads,
            "slots": setup.slots,
            "kv_cells": setup.kv_cells,
            **more,
        },
        host=host.description(),
    )
