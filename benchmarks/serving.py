"""Our server against a peer, load by load: `python -m benchmarks.serving`.

Both run while a comparison lasts, and take turns under load; the one whose turn it is not is idle. Both are
asked the same prompts in a pair, with every pair its own, so that no cache helps unless that is the load.
What was taken from others: vLLM's `vllm bench serve` gives the definitions of the latencies, `ignore_eos` and
random prompts of exact length; llama.cpp's `tools/server/bench` the closed loop of constant clients and
counting by the server's `usage`. Alternation and intervals are from neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks import host, quiet
from benchmarks.contenders.contender import Contender, Setup, flags
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.process import Running
from benchmarks.load_process import run_load
from benchmarks.loads import CLIENTS, LOADS, Load
from benchmarks.options import Options, parse
from benchmarks.pairs import measure_pairs
from benchmarks.results import Series
from benchmarks.words import Words
from labsupport.errors import LabsupportError

MODELS = ("pocket", "synthetic-0.3b")
SHORT = (
    ("pocket", "plain", (1, 4, 16)),
    ("synthetic-0.3b", "shared", (8,)),
    ("synthetic-0.3b", "plain", (1, 16)),
    ("pocket", "shared", (8,)),
    ("pocket", "mixed", (8,)),
)
"""The short set, most telling first, because a budget may end it anywhere."""


@dataclass(frozen=True)
class Cell:
    """One comparison: a model, a load and how many ask at once."""

    model: str
    load: Load
    clients: int


def cells(options: Options) -> list[Cell]:
    """The comparisons that are asked for. Raises LabsupportError for a load that there is not."""
    for name in options.load:
        if name not in LOADS:
            raise LabsupportError(f"there is no load {name!r}", allowed=", ".join(LOADS))
    plan: tuple[tuple[str, str, tuple[int, ...]], ...] = SHORT
    if options.set == "all" or options.model or options.load or options.clients:
        plan = tuple((model, load, CLIENTS) for model in options.model or MODELS for load in LOADS)
    return [
        Cell(model, LOADS[load], clients)
        for model, load, numbers in plan
        for clients in options.clients or numbers
        if not options.load or load in options.load
    ]


def run(options: Options, *, is_quiet: bool) -> bool:
    """Measure whatever of the cells is not measured yet; whether all of it is now."""
    is_complete, wanted = True, cells(options)
    for peer in options.peers():
        for model in dict.fromkeys(cell.model for cell in wanted):
            setup = options.setup(model)
            if lack := peer.lack(setup):
                print(f"serving, {peer.name}, {model}: left out: {lack}")
                continue
            mine = [cell for cell in wanted if cell.model == model]
            is_complete &= compare(
                Ours(), peer, setup, mine, options, experiment="serving", is_quiet=is_quiet
            )
    return is_complete


def compare(
    ours: Contender,
    peer: Contender,
    setup: Setup,
    wanted: list[Cell],
    options: Options,
    *,
    experiment: str,
    is_quiet: bool,
) -> bool:
    """Pairs for each cell of one model; whether there are enough of all. Starts only what is needed."""
    every = [(cell, _series(ours, peer, setup, cell, options, experiment)) for cell in wanted]
    open_ones = [(cell, series) for cell, series in every if len(series.pairs) < options.pairs]
    if not open_ones:
        return True
    if options.budget.is_spent:
        return False
    words = Words(setup.gguf)
    with Running(ours, setup) as first, Running(peer, setup) as second:
        sides = {ours.name: first, peer.name: second}
        for cell, series in open_ones:

            def measure(name: str, seed: int | str, cell: Cell = cell, most: int = 0) -> dict[str, Any]:
                return _one_run(sides[name], setup, cell, words, seed, options, most=most)

            if options.budget.is_spent:
                break
            for name in sides:  # what is slow only once: pages, lazy allocations, a first connection
                measure(name, "warm-up", most=cell.clients + 1)
            measure_pairs(
                series,
                (ours.name, peer.name),
                measure,
                wanted=options.pairs,
                budget=options.budget,
                is_quiet=is_quiet,
            )
    return all(len(series.pairs) >= options.pairs for _, series in open_ones)


def _one_run(
    running: Running,
    setup: Setup,
    cell: Cell,
    words: Words,
    seed: int | str,
    options: Options,
    *,
    most: int,
) -> dict[str, Any]:
    prompts = cell.load.prompts(
        words, f"{setup.model} {cell.clients} {seed}", most=most or options.requests or None
    )
    figures = run_load(
        running.url,
        prompts,
        clients=cell.clients,
        seconds=options.seconds,
        least_requests=min(options.rounds * cell.clients + 1, len(prompts)),
        model=running.contender.model_name(setup),
        extra=running.contender.extra(setup),
        timeout_seconds=options.timeout,
    )
    return figures | {"resident_bytes": running.resident_bytes()}


def _series(
    ours: Contender,
    peer: Contender,
    setup: Setup,
    cell: Cell,
    options: Options,
    experiment: str,
) -> Series:
    """The results file of a cell. Two lengths of run are two settings."""
    name = f"{experiment}-{peer.name}-{_short(setup.model)}-{cell.load.name}-c{cell.clients}"
    return Series.open(
        options.results,
        name,
        experiment=experiment,
        settings={
            **host.identity(),
            "contenders": {
                one.name: {
                    "version": one.version(),
                    "command": flags(one, setup),
                    "environment": one.environment(setup),
                    "extra": {key: value for key, value in one.extra(setup).items() if key != "logit_bias"},
                }
                for one in (ours, peer)
            },
            "order": [ours.name, peer.name],
            "model": _short(setup.model),
            "gguf_sha256": host.file_digest(setup.gguf),
            "threads": setup.threads,
            "slots": setup.slots,
            "kv_cells": setup.kv_cells,
            "load": cell.load.name,
            "load_description": cell.load.description,
            "clients": cell.clients,
            "seconds": options.seconds,
            "rounds": options.rounds,
            "most_requests": options.requests,
        },
        host=host.description(),
    )


def _short(model: str) -> str:
    return model.rsplit("/", 1)[-1].removesuffix(".gguf")


def main(argv: list[str] | None = None) -> int:
    options = parse(argv, "Our server against its peers, in pairs.")
    is_quiet = quiet.refuse_if_busy(anyway=options.anyway)
    is_complete = run(options, is_quiet=is_quiet)
    from benchmarks.tables import print_tables

    print_tables(options.results, experiments=("serving",))
    if not is_complete:
        print("Not all is measured yet; the same command goes on from here.")
    return 0


if __name__ == "__main__":
    from benchmarks.entry import ending_with_status

    ending_with_status(main)
