"""One call: how long it may take, where its results go, and how a contender is asked for them."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import host
from benchmarks.cuda import machine
from benchmarks.cuda.brought import BROUGHT
from benchmarks.cuda.child import run_child
from benchmarks.results import RESULTS, Series

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Options:
    """See `--help` of `benchmarks.gpu`."""

    out: Path = RESULTS
    minutes: float = 8.0
    shape: str = "llama-3.1-8b"
    sequences: tuple[int, ...] = (1, 32, 8, 64)
    prompt_tokens: int = 128
    new_tokens: int = 128
    repetitions: int = 3
    device: str = "cuda"
    scratch: Path | None = None
    brought: Path = BROUGHT
    cmake: tuple[str, ...] = ()


@dataclass
class Session:
    """A call that is under way. python_path: folders that its processes import from, besides this project.

    config: of the model's shape, as in a `config.json`.
    """

    name: str
    options: Options
    config: dict[str, Any]
    python_path: list[Path] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    unfinished: list[str] = field(default_factory=list)

    @property
    def seconds_left(self) -> float:
        return 60 * self.options.minutes - (time.monotonic() - self.began)

    @property
    def environment(self) -> dict[str, str]:
        """For a process of this call. Nothing in it looks for a network."""
        inherited = os.environ.get("PYTHONPATH", "")
        path = [str(ROOT), *map(str, self.python_path), *([inherited] if inherited else [])]
        offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        hidden = {} if self.options.device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
        return os.environ | {"PYTHONPATH": os.pathsep.join(path)} | offline | hidden

    def series(self, name: str, experiment: str, *, own_code: bool = False, **settings: Any) -> Series:
        """The results file of that name. own_code: whether our engine's source belongs to its settings."""
        identity = machine.identity(self.options.device)
        if own_code:
            identity["code"] = machine.code()
        settings = identity | {"shape": Path(self.options.shape).stem} | settings
        return Series.open(
            self.options.out, name, experiment=experiment, settings=settings, host=host.description()
        )

    def ask(
        self,
        work: dict[str, Any],
        on_entry: Callable[[dict[str, Any]], None] = lambda _: None,
        *,
        environment: dict[str, str] | None = None,
    ) -> bool:
        """Have a contender do its work in a process of its own and take what it measures; whether it did."""
        work = {"config": self.config, "device": self.options.device, "sequences": []} | work

        def take(line: str) -> None:
            on_entry(json.loads(line) | {"measured": datetime.now(UTC).isoformat(timespec="seconds")})

        return self.run(
            [sys.executable, "-m", "benchmarks.cuda.contender"],
            name=f"{work['contender']} {work.get('quantization', '')}".strip(),
            given=json.dumps(work),
            on_line=take,
            environment=environment,
        )

    def run(
        self,
        command: list[str],
        *,
        name: str,
        given: str = "",
        on_line: Callable[[str], None] = lambda _: None,
        environment: dict[str, str] | None = None,
    ) -> bool:
        """Run a command within the time that is left; whether it ended well. If not, it is said why."""
        print(f"  {name}… ({self.seconds_left:.0f} s left)", flush=True)
        problem = run_child(
            command,
            seconds=self.seconds_left,
            log=self.options.out / f"gpu-{self.name}.log",
            given=given,
            environment=environment or self.environment,
            on_line=on_line,
        )
        if problem:
            self.unfinished.append(name)
            print(f"  {name}: {problem}", flush=True)
        return not problem
