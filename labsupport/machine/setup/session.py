"""One run of set-up in one clone: where things are, what is done already, and which commands are running."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from labsupport.machine.setup import llama_wheel
from labsupport.machine.setup.progress import Board, Job
from labsupport.machine.setup.requirements import Requirements, normal
from labsupport.machine.setup.stamps import Stamps, fingerprint


class Session:
    """What every step needs to know.

    `gpu` says whether the CUDA builds are wanted, `cpu_index` where CPU builds of torch are if not.
    """

    def __init__(self, *, root: Path, gpu: bool, cpu_index: str, steps: int) -> None:
        self.root = root
        self.gpu = gpu
        self.cpu_index = cpu_index
        self.venv = root / ".venv"
        self.python = self.venv / "bin" / "python"
        self.logs = root / ".cache" / "setup"
        self.cache = cache_folder()
        self.stamps = Stamps(self.venv / "setup.json")
        self.board = Board(steps)
        self.requirements = Requirements.read(root)
        self.llama_arguments = llama_wheel.cmake_arguments(
            cuda=gpu and llama_wheel.has_cuda_compiler(), extra=os.environ.get("CMAKE_ARGS", "")
        )
        self.llama_folder = llama_wheel.folder(
            self.cache, version=self.requirements.version("llama-cpp-python"), arguments=self.llama_arguments
        )
        self._jobs: list[Job] = []

    def step(
        self,
        name: str,
        title: str,
        inputs: Sequence[object],
        act: Callable[[], Any],
        *,
        still_there: Callable[[Any], bool] = lambda result: True,
    ) -> Any:
        """Do a step and return what it left.

        It is not done again if it was finished with the same inputs and what it left is still there.
        """
        self.board.heading(title)
        inputs_print = fingerprint(*inputs)
        result = self.stamps.result(name, inputs_print)
        if result is None or not still_there(result):
            result = act()
            self.stamps.finish(name, inputs_print, result)
        else:
            self.board.note("done before")
        return result

    def start(self, log: str, *words: str | Path, **environment: str) -> Job:
        """Start a command, its output in a log; it ends when set-up does, at the latest."""
        surroundings = {
            **os.environ,
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
            "PIP_PROGRESS_BAR": "off",
            "PIP_USER": "0",
            **environment,
        }
        job = Job(words, log=self.logs / f"{log}.log", environment=surroundings, cwd=self.root)
        self._jobs.append(job)
        return job

    def run(self, log: str, *words: str | Path, beside: Job | None = None) -> Job:
        """Run a command to its end; raises `StepFailed` if it fails."""
        job = self.start(log, *words)
        self.board.wait(job, beside=beside)
        return job

    def pip(self, *words: str | Path, beside: Job | None = None) -> Job:
        """Run the environment's pip to its end; raises `StepFailed` if it fails."""
        return self.run(f"pip-{words[0]}", self.python, "-m", "pip", *words, beside=beside)

    def ask_pip(
        self, words: Sequence[str], *, enough: Callable[[str], bool] = lambda output: False
    ) -> tuple[int, str]:
        """What pip answers, with its exit status; it is stopped as soon as `enough(output)` holds."""
        job = self.start("pip-question", self.python, "-m", "pip", *words)
        self.board.watch(job, enough=lambda asked: enough(asked.output()))
        return job.status or 0, job.output()

    def holds(self, names: Sequence[str]) -> bool:
        """Whether the environment has all these packages in their pinned versions."""
        installed = self.venv.glob("lib/python*/site-packages/*.dist-info")
        pairs = [folder.stem.partition("-") for folder in installed]
        found = {(normal(name), version.split("+")[0]) for name, _, version in pairs}
        return all((normal(name), self.requirements.version(name)) in found for name in names)

    def stop(self) -> None:
        """End every command that still runs."""
        for job in self._jobs:
            job.stop()


def cache_folder() -> Path:
    """Where what can be made again is kept: `LABSUPPORT_CACHE`, or `labsupport` in the user's cache."""
    if own := os.environ.get("LABSUPPORT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labsupport"
