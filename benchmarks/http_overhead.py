"""What HTTP costs: the same prompts through the engine alone, and through the server.

Both sides have as many sequences under way as there are slots and count all tokens over all the time, ramps
included, because the engine alone has no arrivals whose ramp could be cut off.
"""

from __future__ import annotations

from typing import Any

from benchmarks import host
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.process import Running
from benchmarks.in_process import seconds_in_process
from benchmarks.load_process import run_load
from benchmarks.loads import LOADS
from benchmarks.options import Options
from benchmarks.pairs import measure_pairs
from benchmarks.results import Series
from benchmarks.words import Words

MODEL = "synthetic-0.3b"
ROUNDS = 3
CONTENDERS = ("http", "engine alone")


def run(options: Options, *, is_quiet: bool, model: str = MODEL) -> bool:
    """Measure what is missing; whether all is there now."""
    setup, ours, load = options.setup(model), Ours(), LOADS["plain"]
    count = options.requests or ROUNDS * setup.slots
    series = Series.open(
        options.results,
        f"http-overhead-{model}",
        experiment="http-overhead",
        settings={
            **host.identity(),
            "order": list(CONTENDERS),
            "model": model,
            "gguf_sha256": host.file_digest(setup.gguf),
            "threads": setup.threads,
            "slots": setup.slots,
            "load": load.name,
            "requests": count,
        },
        host=host.description(),
    )
    if len(series.pairs) >= options.pairs or options.budget.is_spent:
        return len(series.pairs) >= options.pairs
    words = Words(setup.gguf)
    settings = {
        "model": str(setup.gguf),
        "engine": "llama",
        "threads": setup.threads,
        "slots": setup.slots,
        "context_tokens": setup.context_tokens,
        "n_gpu_layers": 0,
    }
    with Running(ours, setup) as running:

        def measure(name: str, seed: int) -> dict[str, Any]:
            prompts = load.prompts(words, f"http-overhead {seed}", most=count)
            limit = prompts[0].max_tokens or 0
            if name == "http":
                return run_load(
                    running.url,
                    prompts,
                    clients=setup.slots,
                    seconds=None,
                    model=ours.model_name(setup),
                    extra=ours.extra(setup),
                    timeout_seconds=options.timeout,
                )
            tokens = [
                words.tokenizer.encode(str(prompt.prompt), add_special=True, parse_special=True)
                for prompt in prompts
            ]
            (seconds,) = seconds_in_process(settings, tokens, max_tokens=limit)
            return {"figures": {"whole_run_tokens_per_second": len(prompts) * limit / seconds}}

        return measure_pairs(
            series, CONTENDERS, measure, wanted=options.pairs, budget=options.budget, is_quiet=is_quiet
        )
