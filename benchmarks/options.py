"""The options that all measurements share."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.contenders.contender import Contender, Setup
from benchmarks.contenders.llama_cpp_server import LlamaCppServer
from benchmarks.contenders.llama_server import LlamaServer
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.transformers_serve import TransformersServe
from benchmarks.make_peer import environment_python
from benchmarks.pairs import Budget
from benchmarks.results import RESULTS
from benchmarks.words import Words
from labsupport import models
from labsupport.errors import LabsupportError
from labsupport.machine.detect import usable_cores

CONTEXT_TOKENS = 2048
LARGEST_DEFAULT_CELLS = 16384
"""What our engine takes for its cells by default (`engine.config`), so what peers are given too."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """See `--help`."""

    set: str = "short"
    peer: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    clients: tuple[int, ...] = ()
    only: tuple[str, ...] = ()
    pairs: int = 5
    seconds: float = 10.0
    requests: int = 0
    rounds: int = 3
    timeout: float = 300.0
    threads: int = 0
    slots: int = 16
    budget_minutes: float | None = None
    results: Path = RESULTS
    anyway: bool = False
    llama_server: str = "llama-server"
    llama_batched_bench: str = "llama-batched-bench"
    llama_cpp_python: str = ""

    def __post_init__(self) -> None:
        for name in ("pairs", "slots", "rounds"):
            if getattr(self, name) < 1:
                raise LabsupportError(f"--{name} is {getattr(self, name)}", allowed="1 or more")

    @cached_property
    def budget(self) -> Budget:
        """Begins to run when it is first asked for."""
        return Budget(self.budget_minutes)

    def setup(self, model: str) -> Setup:
        """What all contenders are given for a model. Its file is made if it is missing."""
        gguf = models.path(model, "q4_k_m")
        try:
            checkpoint = None if model.endswith(".gguf") else models.checkpoint(model)
        except LabsupportError:
            checkpoint = None
        return Setup(
            model=model,
            gguf=gguf,
            checkpoint=checkpoint,
            threads=self.threads or usable_cores(),
            slots=self.slots,
            context_tokens=CONTEXT_TOKENS,
            kv_cells=max(CONTEXT_TOKENS, min(self.slots * CONTEXT_TOKENS, LARGEST_DEFAULT_CELLS)),
            end_tokens=tuple(Words(gguf).end_tokens()),
        )

    def peers(self) -> list[Contender]:
        """The peers that are asked for, whether or not they can run here."""
        known: list[Contender] = [
            LlamaServer(self.llama_server),
            LlamaCppServer(self.llama_cpp_python or str(environment_python())),
            TransformersServe(),
            Ours(name="ours-again"),
        ]
        names = self.peer or tuple(peer.name for peer in known if peer.name != "ours-again")
        chosen = [peer for peer in known if peer.name in names]
        if len(chosen) < len(set(names)):
            raise LabsupportError(
                f"there is no peer {', '.join(sorted(set(names) - {peer.name for peer in chosen}))}",
                allowed=", ".join(peer.name for peer in known),
            )
        return chosen


def parse(argv: list[str] | None, description: str) -> Options:
    """Read a command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--set", choices=("short", "all"), default="short", help="which loads (default: short)"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="of the measurements only this one"
    )
    parser.add_argument("--peer", action="append", default=[], metavar="NAME", help="only this peer")
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="only this model")
    parser.add_argument("--load", action="append", default=[], metavar="NAME", help="only this load")
    parser.add_argument("--clients", action="append", default=[], type=int, metavar="N", help="only so many")
    parser.add_argument("--pairs", type=int, default=5, help="of runs in each comparison (default: 5)")
    parser.add_argument("--seconds", type=float, default=10.0, help="a run sends so long (default: 10)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="but each client at least so many requests (default: 3)"
    )
    parser.add_argument(
        "--requests", type=int, default=0, help="at most so many in a run (default: no bound)"
    )
    parser.add_argument(
        "--timeout", type=float, default=300.0, help="longest silence, in seconds (default: 300)"
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="of every contender (default: one for each usable core)"
    )
    parser.add_argument("--slots", type=int, default=16, help="of every contender (default: 16)")
    parser.add_argument(
        "--budget-minutes", type=float, metavar="M", help="begin no pair after so long; go on next time"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results files")
    parser.add_argument("--anyway", action="store_true", help="measure on a busy machine too, and mark it")
    parser.add_argument("--llama-server", default="llama-server", metavar="PATH")
    parser.add_argument("--llama-batched-bench", default="llama-batched-bench", metavar="PATH")
    parser.add_argument(
        "--llama-cpp-python",
        default="",
        metavar="PYTHON",
        help="an interpreter with llama-cpp-python[server]",
    )
    given = vars(parser.parse_args(argv))
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return Options(**(given | lists))
