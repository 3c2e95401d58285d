"""What a shared prefix saves: time to first token of prompts that share 900 tokens, and of ones that do not.

One client, so that nobody queues; in each run shared and unshared prompts take turns, after one that puts the
prefix into the cache.
"""

from __future__ import annotations

import random
import statistics
from typing import Any

from benchmarks import host
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.process import Running
from benchmarks.load_process import run_load
from benchmarks.options import Options
from benchmarks.pairs import measure_pairs
from benchmarks.results import Series
from benchmarks.words import Words
from labsupport.loadtest import Prompt

MODEL = "synthetic-0.3b"
CONTENDERS = ("shared prefix", "no shared prefix")
PREFIX_TOKENS, OWN_TOKENS, ANSWER_TOKENS, PROMPTS = 900, 32, 2, 4


def run(options: Options, *, is_quiet: bool, model: str = MODEL) -> bool:
    """Measure what is missing; whether all is there now."""
    setup, ours = options.setup(model), Ours()
    series = Series.open(
        options.results,
        f"prefix-{model}",
        experiment="prefix",
        settings={
            **host.identity(),
            "order": list(CONTENDERS),
            "model": model,
            "gguf_sha256": host.file_digest(setup.gguf),
            "threads": setup.threads,
            "tokens": [PREFIX_TOKENS, OWN_TOKENS, ANSWER_TOKENS],
            "prompts": PROMPTS,
        },
        host=host.description(),
    )
    if len(series.pairs) >= options.pairs or options.budget.is_spent:
        return len(series.pairs) >= options.pairs
    words = Words(setup.gguf)
    with Running(ours, setup) as running:

        def measure(name: str, seed: int) -> dict[str, Any]:
            chance = random.Random(f"prefix {name} {seed}")
            shared = words.text(PREFIX_TOKENS, chance)
            first = [shared] if name == CONTENDERS[0] else []
            texts = first + [
                (shared if first else words.text(PREFIX_TOKENS, chance)) + words.text(OWN_TOKENS, chance)
                for _ in range(PROMPTS)
            ]
            run = run_load(
                running.url,
                [Prompt(prompt=text, max_tokens=ANSWER_TOKENS) for text in texts],
                clients=1,
                seconds=None,
                model=ours.model_name(setup),
                extra=ours.extra(setup),
                timeout_seconds=options.timeout,
            )
            column = run["columns"].index("ttft")
            measured = [request[column] for request in run["requests"]][len(first) :]
            return run | {"figures": {"ttft_median": statistics.median(measured)}}

        return measure_pairs(
            series, CONTENDERS, measure, wanted=options.pairs, budget=options.budget, is_quiet=is_quiet
        )
