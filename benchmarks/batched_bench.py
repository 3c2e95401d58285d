"""The engine in its process against llama.cpp's `llama-batched-bench` on the same batch.

Both prefill B prompts of 128 tokens and then decode 64 steps of B tokens; tokens a second are those decoded
over the whole time, prefill included. Our last token is drawn and not decoded again, so ours generates 65.
Both compute at most 512 tokens at once here, llama-batched-bench's default, because a batch alone has nobody
whose next token a long step could hold up; and sharing prefixes is off.
Source: `tools/batched-bench/batched-bench.cpp` in the source archive of llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from typing import Any

from benchmarks import host
from benchmarks.contenders.llama_server import HOW_TO_GET, version_of
from benchmarks.in_process import seconds_in_process
from benchmarks.options import Options
from benchmarks.pairs import measure_pairs
from benchmarks.results import Series
from labsupport.errors import LabsupportError
from labsupport.server.tokenizer import Tokenizer

MODELS = ("pocket", "synthetic-0.3b")
BATCHES = {"short": (1, 16), "all": (1, 4, 8, 16, 32)}
PROMPT_TOKENS, STEPS, STEP_TOKENS = 128, 64, 512
CONTENDERS = ("ours, in process", "llama-batched-bench")


def run(options: Options, *, is_quiet: bool) -> bool:
    """Measure what is missing; whether all is there now."""
    binary = options.llama_batched_bench
    if not shutil.which(binary):
        print(
            f"batched-bench: left out: there is no {binary}. {HOW_TO_GET.replace('server', 'batched-bench')}."
        )
        return True
    results = [
        _one(options, model, batch, is_quiet=is_quiet)
        for model in options.model or MODELS
        for batch in options.clients or BATCHES[options.set]
    ]
    return all(results)


def _one(options: Options, model: str, batch: int, *, is_quiet: bool) -> bool:
    setup = options.setup(model)
    cells = -(-batch * (PROMPT_TOKENS + STEPS + 1) // 256) * 256
    command = [shutil.which(options.llama_batched_bench) or "", "--model", str(setup.gguf)]
    command += ["--ctx-size", str(cells), "--kv-unified", "--n-gpu-layers", "0"]
    command += ["--batch-size", "2048", "--ubatch-size", str(STEP_TOKENS)]
    command += ["--threads", str(setup.threads), "--threads-batch", str(setup.threads)]
    command += [
        "-npp",
        str(PROMPT_TOKENS),
        "-ntg",
        str(STEPS),
        "-npl",
        f"{batch},1",  # it may end before its last line is written, so that must not be the one that counts
        "--output-format",
        "jsonl",
    ]
    settings = {
        "model": str(setup.gguf),
        "engine": "llama",
        "threads": setup.threads,
        "spare_cores": 0,
        "slots": batch,
        "prefix_slots": 0,
        "context_tokens": PROMPT_TOKENS + STEPS + 1,
        "kv_cells": cells,
        "step_tokens": STEP_TOKENS,
        "n_gpu_layers": 0,
    }
    series = Series.open(
        options.results,
        f"batched-bench-{model}-b{batch}",
        experiment="batched-bench",
        settings={
            **host.identity(),
            "order": list(CONTENDERS),
            "model": model,
            "gguf_sha256": host.file_digest(setup.gguf),
            "threads": setup.threads,
            "batch": batch,
            "version": version_of(options.llama_batched_bench),
            "command": [word for word in command if not word.startswith("/")],
            "engine": settings | {"model": model},
        },
        host=host.description(),
    )
    vocabulary = Tokenizer(setup.gguf).size

    def measure(name: str, seed: int) -> dict[str, Any]:
        if name == CONTENDERS[1]:
            figures = peer_figures(command)
        else:
            chance = random.Random(f"batched-bench {seed}")
            prompts = [
                [chance.randrange(300, vocabulary) for _ in range(PROMPT_TOKENS)] for _ in range(batch)
            ]
            (seconds,) = seconds_in_process(settings, prompts, max_tokens=STEPS + 1)
            figures = {"whole_run_tokens_per_second": batch * STEPS / seconds}
        return {"figures": figures}

    return measure_pairs(
        series, CONTENDERS, measure, wanted=options.pairs, budget=options.budget, is_quiet=is_quiet
    )


def peer_figures(command: list[str]) -> dict[str, float]:
    """Run llama-batched-bench once. Raises LabsupportError if it fails or measures nothing."""
    finished = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    lines = [
        line for line in (finished.stdout + finished.stderr).splitlines() if line.startswith('{"n_kv_max"')
    ]
    if finished.returncode or not lines:
        raise LabsupportError(
            f"llama-batched-bench ended with status {finished.returncode} and measured nothing: "
            + finished.stderr.strip()[-1000:]
        )
    row = json.loads(lines[0])
    return {
        "whole_run_tokens_per_second": row["pl"] * row["tg"] / row["t"],
        "prefill_tokens_per_second": row["speed_pp"],
        "decode_tokens_per_second": row["speed_tg"],
    }
