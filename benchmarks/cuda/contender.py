"""One contender in a process of its own: `python -m benchmarks.cuda.contender`, which prints lines of JSON.

It reads a `Work` as JSON from standard input, and prints one line as soon as something is measured, so that
whoever started it loses nothing by ending it. What libraries print goes to standard error.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cuda.rates import medians, rates
from labsupport.errors import LabsupportError

Entry = dict[str, Any]
Run = Callable[[list[list[int]], int], tuple[float, list[list[float]]]]
"""Prompts and a number of new tokens to when it began, and when each token of each sequence was there."""

WARM_UP_TOKENS = 8
STEP_TOKENS = 2048
KV_SLOTS, KV_CONTEXT_TOKENS = 16, 2040
COPIED_BYTES = {"cuda": 4 << 30, "cpu": 64 << 20}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a contender is asked to do. model: a checkpoint's folder or a GGUF file, there or to be made.

    config: of the model's shape, as in a `config.json`. sequences: how many at once, one measurement each.
    """

    contender: str
    model: str
    config: dict[str, Any]
    device: str = "cuda"
    quantization: str = ""
    sequences: tuple[int, ...] = ()
    prompt_tokens: int = 0
    new_tokens: int = 0
    repetitions: int = 1


def bandwidth(work: Work) -> Iterator[Entry]:
    """How fast the device reads its memory, and copies it (a byte counts twice): the higher is the limit."""
    import torch

    from labsupport.machine import measure

    kinds = {
        "copy": measure.memory_copy(work.device, array_bytes=COPIED_BYTES[work.device]),
        "read": measure.memory_read(work.device, array_bytes=COPIED_BYTES[work.device]),
    }
    seen = {f"{name}_bytes_per_second": 1e9 * kind.median for name, kind in kinds.items()}
    yield {
        "figures": seen | {"bandwidth_bytes_per_second": max(seen.values())},
        "samples": {name: list(kind.samples) for name, kind in kinds.items()},
        "cuda": torch.version.cuda or "",
    }


def checkpoint(work: Work) -> Iterator[Entry]:
    """Make the checkpoint, if it is not there."""
    from benchmarks.cuda.checkpoint import write_checkpoint

    began = time.perf_counter()
    write_checkpoint(work.config, Path(work.model), device=work.device)
    yield {"figures": {"seconds": time.perf_counter() - began}}


def gguf(work: Work) -> Iterator[Entry]:
    """Make the GGUF file, if it is not there."""
    from labsupport.anatomy import ModelShape
    from labsupport.models.synthetic import write_synthetic

    began, target = time.perf_counter(), Path(work.model)
    if not target.is_file():
        unfinished = target.with_suffix(".part")
        write_synthetic(ModelShape.from_config(work.config), unfinished, form=work.quantization)
        unfinished.rename(target)
    yield {"figures": {"seconds": time.perf_counter() - began}}


def memory(work: Work) -> Iterator[Entry]:
    """Bytes that the weights and a KV cache take on the device, beside what the anatomy says."""
    import torch

    from benchmarks.cuda.limit import weights_bytes
    from labsupport.anatomy import ModelShape, kv_bytes_per_token
    from labsupport.engine.runners.bnb.loading import load, stored_bytes
    from labsupport.engine.runners.bnb.slot_cache import SlotCache

    device = torch.device(work.device, 0) if work.device == "cuda" else torch.device("cpu")

    def allocated() -> int:
        gc.collect()
        return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0

    shape, before = ModelShape.from_config(work.config), allocated()
    model = load(Path(work.model), work.quantization, device)
    loaded = allocated()
    cache = SlotCache(
        layers=shape.layers,
        num_slots=KV_SLOTS,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        context_tokens=KV_CONTEXT_TOKENS,
        dtype=model.dtype,
        device=device,
    )
    per_token = kv_bytes_per_token(shape, "f32" if model.dtype == torch.float32 else "f16")
    figures = {
        "weights_expected_bytes": weights_bytes(shape, work.quantization),
        "weights_stored_bytes": stored_bytes(model),
        "weights_allocated_bytes": loaded - before,
        "kv_expected_bytes": KV_SLOTS * KV_CONTEXT_TOKENS * per_token,
        "kv_stored_bytes": cache.nbytes,
        "kv_allocated_bytes": allocated() - loaded,
    }
    yield {"quantization": work.quantization, "figures": figures}


def ours(work: Work) -> Iterator[Entry]:
    """Our engine in this process: scheduler and runner, bnb for a checkpoint and llama for a file."""
    from labsupport.engine.config import EngineConfig
    from labsupport.engine.loading import load
    from labsupport.engine.messages import SamplingParams
    from labsupport.engine.offline import OfflineEngine

    slots, context = max(work.sequences), work.prompt_tokens + work.new_tokens
    config = EngineConfig(
        model=work.model,
        quantization="" if work.model.endswith(".gguf") else work.quantization,
        slots=slots,
        prefix_slots=0,
        context_tokens=context,
        kv_cells=slots * context,
        step_tokens=max(STEP_TOKENS, slots),
        n_gpu_layers=-1 if work.device == "cuda" else 0,
    )
    runner, chosen = load(config.checked())
    if chosen.device != work.device:
        raise LabsupportError(f"our engine would run on {chosen.device}: {chosen.reason}")
    timed = TimedRunner(runner)
    with OfflineEngine(config, timed) as engine:

        def run(prompts: list[list[int]], new_tokens: int) -> tuple[float, list[list[float]]]:
            timed.times.clear()
            began = time.perf_counter()
            engine.generate(prompts, SamplingParams(max_tokens=new_tokens, temperature=0, ignore_eos=True))
            return began, list(timed.times.values())

        yield from measured(work, run)


class TimedRunner:
    """A runner that notes when it handed over each slot's tokens, which is when the host has them."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.limits, self.end_tokens, self.piece = runner.limits, runner.end_tokens, runner.piece
        self.times: dict[int, list[float]] = {}

    def step(self, plan: Any) -> Any:
        drawn = self._runner.step(plan)
        now = time.perf_counter()
        for row in plan.rows:
            if row.draw:
                self.times.setdefault(row.slot, []).append(now)
        return drawn

    def close(self) -> None:
        self._runner.close()


def generate(work: Work) -> Iterator[Entry]:
    """transformers' `generate`."""
    import torch

    from benchmarks.cuda import peers

    model = peers.load(work.model, work.quantization, torch.device(work.device))
    yield from measured(work, lambda prompts, new_tokens: peers.generate(model, prompts, new_tokens))


def continuous(work: Work) -> Iterator[Entry]:
    """transformers' continuous batching."""
    import torch

    from benchmarks.cuda import peers

    model = peers.load(work.model, work.quantization, torch.device(work.device), attention="paged|sdpa")
    with peers.continuous_batching(
        model,
        sequences=max(work.sequences),
        tokens_each=work.prompt_tokens + work.new_tokens,
        new_tokens=work.new_tokens,
    ) as manager:
        yield from measured(work, lambda prompts, count: peers.run_continuous(manager, prompts, count))


def measured(work: Work, run: Run) -> Iterator[Entry]:
    """One entry for each number of sequences: the medians of some runs after a short one, and all runs."""
    for sequences in work.sequences:
        run(prompts_for(work, sequences, "warm-up"), min(WARM_UP_TOKENS, work.new_tokens))
        runs = []
        for repetition in range(work.repetitions):
            began, times = run(prompts_for(work, sequences, repetition), work.new_tokens)
            if [len(one) for one in times] != [work.new_tokens] * sequences:
                raise LabsupportError(f"{work.contender}: not every answer has {work.new_tokens} tokens")
            runs.append(rates(began, times))
        yield {"sequences": sequences, "figures": medians(runs), "samples": runs}


def prompts_for(work: Work, sequences: int, seed: int | str) -> list[list[int]]:
    """Random tokens, the same for all contenders and other ones in every run."""
    chance = random.Random(f"gpu {sequences} {seed}")
    return [[chance.randrange(256) for _ in range(work.prompt_tokens)] for _ in range(sequences)]


CONTENDERS: dict[str, Callable[[Work], Iterator[Entry]]] = {
    one.__name__: one for one in (bandwidth, checkpoint, gguf, memory, ours, generate, continuous)
}


def main() -> int:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    given = json.load(sys.stdin)
    work = Work(**(given | {"sequences": tuple(given["sequences"])}))
    for entry in CONTENDERS[work.contender](work):
        print(json.dumps(entry), file=out, flush=True)
    return 0


if __name__ == "__main__":
    from benchmarks.entry import ending_with_status

    ending_with_status(main)
