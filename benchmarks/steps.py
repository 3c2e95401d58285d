"""What a step takes, by how threads wait for each other and by how much is kept beside what runs.

One comparison behind two decisions of the engine: threads spin for microseconds before they sleep
(`engine.runners.threads`), and finished sequences are kept only as far as prompts ask for them
(`engine.prefix_cache`). A neighbour is a process that takes as much of a core as it can get.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import host
from benchmarks.contenders.contender import Setup
from benchmarks.options import Options
from benchmarks.pairs import measure_pairs
from benchmarks.results import Series
from labsupport.errors import LabsupportError

SLOTS, PROMPT_TOKENS, KEPT_LENGTH = 16, 128, 1024
BATCHES = (1, 16)
OURS = "as it is"


@dataclass(frozen=True)
class Case:
    """So many sequences decode a token each, beside so many kept cells and perhaps a neighbour."""

    batch: int
    kept_cells: int = 0
    has_neighbour: bool = False
    environment: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        kept = f", {self.kept_cells:,} cells kept" if self.kept_cells else ""
        return f"batch {self.batch}{kept}{', beside a busy neighbour' if self.has_neighbour else ''}"


WAYS_TO_WAIT = {
    "sleeping at once": (("GOMP_SPINCOUNT", "0"),),
    "spinning on": (("OMP_WAIT_POLICY", "ACTIVE"),),
}


def comparisons(model: str, batches: Sequence[int]) -> dict[str, tuple[str, Case, Case]]:
    """By name: what the other contender is called, and what each of the two is."""
    found = {}
    for batch in batches:
        for has_neighbour in (False, True):
            case = Case(batch, has_neighbour=has_neighbour)
            for way, environment in WAYS_TO_WAIT.items():
                other = Case(batch, has_neighbour=has_neighbour, environment=environment)
                place = "busy" if has_neighbour else "quiet"
                found[f"steps-{model}-b{batch}-{place}-{way.replace(' ', '-')}"] = (way, case, other)
        kept = Case(batch, kept_cells=3 * KEPT_LENGTH)
        found[f"steps-{model}-b{batch}-kept"] = ("3,072 cells kept", Case(batch), kept)
    return found


def run(options: Options, *, is_quiet: bool) -> bool:
    """Measure what is missing; whether all is there now."""
    is_complete = True
    for model in options.model or ("synthetic-0.3b",):
        setup = options.setup(model)
        for name, (other_name, ours, other) in comparisons(model, options.clients or BATCHES).items():
            cases = {OURS: ours, other_name: other}
            series = Series.open(
                options.results,
                name,
                experiment="steps",
                settings={
                    **host.identity(),
                    "order": list(cases),
                    "model": model,
                    "gguf_sha256": host.file_digest(setup.gguf),
                    "threads": setup.threads,
                    "load": str(ours),
                    "cases": {name: asdict(case) for name, case in cases.items()},
                },
                host=host.description(),
            )

            def measure(
                name: str, seed: int, cases: dict[str, Case] = cases, setup: Setup = setup
            ) -> dict[str, Any]:
                seconds = _seconds(cases[name], str(setup.gguf), setup.threads)
                return {"figures": {"tokens_per_second": cases[name].batch / seconds}}

            is_complete &= measure_pairs(
                series,
                (OURS, other_name),
                measure,
                wanted=options.pairs,
                budget=options.budget,
                is_quiet=is_quiet,
            )
    return is_complete


def _seconds(case: Case, model: str, threads: int) -> float:
    """What a step takes, in a process of its own, because threads learn how to wait when they are loaded."""
    command = [sys.executable, "-m", "benchmarks.steps", model, str(threads), json.dumps(asdict(case))]
    finished = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | dict(case.environment)
    )
    if finished.returncode:
        raise LabsupportError(f"the steps failed: {finished.stderr.strip()[-2000:]}")
    return float(finished.stdout)


def _main(model: str, threads: int, case: Case) -> float:
    """The median over as many steps as fit into two seconds, at least four."""
    from labsupport.engine.config import EngineConfig
    from labsupport.engine.messages import SamplingParams
    from labsupport.engine.plan import Draw, Plan, Row
    from labsupport.engine.runners.llama import LlamaRunner

    greedy = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
    config = EngineConfig(
        model=model, engine="llama", threads=threads, slots=SLOTS, context_tokens=2048, n_gpu_layers=0
    )
    runner = LlamaRunner(config)
    prompt = list(range(300, 300 + PROMPT_TOKENS))

    def step(*rows: Row) -> float:
        began = time.perf_counter()
        runner.step(Plan(operations=(), rows=rows, sequences=()))
        return time.perf_counter() - began

    for place in range(0, case.kept_cells, PROMPT_TOKENS):  # in slots behind those that run
        step(Row(SLOTS + place // KEPT_LENGTH, place % KEPT_LENGTH, prompt, None, 0))
    for slot in range(case.batch):
        step(Row(slot, 0, prompt, Draw(greedy, 0, 0, prompt), 0))
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if case.has_neighbour else None
    try:
        found: list[float] = []
        while sum(found) < 2 or len(found) < 4:
            start = PROMPT_TOKENS + len(found)
            if start == config.context_tokens:
                break
            draw = Draw(greedy, 0, 1 + len(found), prompt)
            found.append(step(*(Row(slot, start, [333], draw, 0) for slot in range(case.batch))))
        return statistics.median(found)
    finally:
        if neighbour:
            neighbour.kill()
            neighbour.wait()


if __name__ == "__main__":
    print(_main(sys.argv[1], int(sys.argv[2]), Case(**json.loads(sys.argv[3]))))
