"""Which build of torch this computer gets: CPU or CUDA.

The same pin, `torch==2.13.0`, is a CPU build in one place and a CUDA build of several gigabytes in another.
Right means: with an NVIDIA GPU, whatever pip takes by itself (the CUDA build, as the package index has it);
without one, a CPU build from where this computer's pip configuration already offers it, and from PyTorch's
own CPU index if it does not. A CUDA build is never downloaded for a computer without an NVIDIA GPU.
"""

from __future__ import annotations

import json
import platform
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from labsupport.errors import LabsupportError

Build = Literal["cpu", "cuda", "unknown", "none"]
CUDA_PACKAGE = re.compile(r"(nvidia|cuda)-", re.IGNORECASE)
OFFERS = {"none": "none for this Python", "cuda": "a CUDA build", "unknown": "one of unknown kind"}
WHOLE_WHEEL = re.compile(r"^\s*Downloading torch-\S+\.whl \(", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """Where torch comes from: a requirement, and the index options to hand to pip with it."""

    requirement: str
    index_options: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Answer:
    """What pip said: the build it would install, and the requirement that names exactly that one."""

    build: Build
    requirement: str


class Pip(Protocol):
    """Runs pip and returns its exit status and output; stops it as soon as `enough(output)` holds."""

    def __call__(self, words: Sequence[str], *, enough: Callable[[str], bool] = ...) -> tuple[int, str]: ...


class NoCpuBuild(LabsupportError):
    """There is no CPU build of torch to be had."""


def choose(*, version: str, gpu: bool, cpu_index: str, pip: Pip, system: str = platform.system()) -> Source:
    """The source of torch for this computer.

    Raises `NoCpuBuild` if there is no GPU and neither the computer's own configuration nor `cpu_index` offers
    a CPU build of `version`.
    """
    plain = f"torch=={version}"
    if gpu:
        return Source(plain, reason="an NVIDIA GPU is present: pip's own choice, the CUDA build")
    if system == "Darwin":
        return Source(plain, reason="there are no CUDA builds for macOS: pip's own choice")
    own = offered(version, (), pip)
    if own.build == "cpu":
        return Source(own.requirement, reason="no NVIDIA GPU; the pip configuration offers a CPU build")
    index = ("--index-url", cpu_index)
    other = offered(version, index, pip)
    if other.build == "cpu":
        return Source(other.requirement, index, "no NVIDIA GPU: the CPU build from PyTorch's own index")
    raise NoCpuBuild(
        f"This computer has no NVIDIA GPU, and no CPU build of torch {version} was found: "
        f"the pip configuration offers {OFFERS[own.build]}, "
        f"and {cpu_index} offers {OFFERS[other.build]}, or cannot be reached.",
        remedy="check the network, or name an index that has it: make lab TORCH_CPU_INDEX=URL",
    )


def offered(version: str, index_options: Sequence[str], pip: Pip) -> Answer:
    """What pip would install for `version` with these index options, found out without downloading it.

    A version labelled `+cpu` is a CPU build by its name. For any other, the metadata tells: a build that
    needs CUDA packages is a CUDA build. Where an index has no separate metadata, pip would fetch the whole
    wheel to read it; it is stopped when it begins to, and the answer is "unknown".
    """
    versions = _versions(*pip(["index", "versions", "torch", "--json", *index_options]))
    if f"{version}+cpu" in versions:
        return Answer("cpu", f"torch=={version}+cpu")
    if not any(found.split("+")[0] == version for found in versions):
        return Answer("none", "")
    plain = f"torch=={version}"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = ["install", "--dry-run", "--ignore-installed", "--no-deps", "--report", str(report), plain]
        status, _ = pip([*words, *index_options], enough=fetches_whole_wheel)
        if status != 0 or not report.exists():
            return Answer("unknown", plain)
        metadata = json.loads(report.read_text())["install"][0]["metadata"]
    return Answer("cuda" if _needs_cuda(metadata) else "cpu", plain)


def fetches_whole_wheel(output: str) -> bool:
    """Whether pip has begun to download a torch wheel itself, and not only its metadata."""
    return WHOLE_WHEEL.search(output) is not None


def _versions(status: int, output: str) -> list[str]:
    """The versions in the answer of `pip index versions --json`, which warnings may surround."""
    answer = next((line for line in output.splitlines() if line.startswith("{")), "{}")
    return list(json.loads(answer).get("versions", [])) if status == 0 else []


def _needs_cuda(metadata: dict[str, Any]) -> bool:
    required = [line for line in metadata.get("requires_dist", []) if "extra ==" not in line]
    return "+cu" in metadata["version"] or any(CUDA_PACKAGE.match(line) for line in required)
