"""Checks of what is installed: the environment, its versions, torch and llama.cpp.

torch and llama.cpp are tried in a process of their own: a build for another processor ends its process with a
signal, and the doctor must live to say so.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labsupport.machine import nvidia
from labsupport.machine.doctor import REPAIR, Finding
from labsupport.machine.setup.requirements import CONSTRAINTS, Requirements
from labsupport.machine.setup.session import cache_folder

ROOT = Path(__file__).resolve().parents[2]
PIP = f"{sys.executable} -m pip"
CUDA_TORCH = f"`{PIP} uninstall -y torch`, then `make setup ACCELERATOR=cuda`"
CUDA_LLAMA = (
    "with CUDA's compiler `nvcc` on PATH (NVIDIA's CUDA toolkit has it), `make setup ACCELERATOR=cuda`"
)
LESS_LOAD = "close programs that use the processor (`top` lists them), then run `labsupport doctor` again"
ANSWER_SECONDS = 120.0

TRY_TORCH = """
import json, torch
product = torch.ones(64, 64) @ torch.ones(64, 64)
assert float(product.sum()) == 64**3, "torch multiplies wrongly"
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(),
                  "cuda": torch.cuda.device_count(), "metal": torch.backends.mps.is_available()}))
"""

TRY_LLAMA = """
import json, llama_cpp
print(json.dumps({"version": llama_cpp.__version__, "gpu": bool(llama_cpp.llama_supports_gpu_offload())}))
"""

TRY_MODEL = """
import math, sys, llama_cpp
model = llama_cpp.Llama(sys.argv[1], n_ctx=256, n_threads=1, n_gpu_layers=0, verbose=False)
model.eval([1, 2, 3])
logits = model.eval_logits[-1]
assert len(logits) == model.n_vocab() and all(map(math.isfinite, logits)), "the logits are not finite"
print("{}")
"""


@dataclass(frozen=True)
class Broken:
    """Why a program gave no answer, in one line."""

    why: str
    timed_out: bool = False
    foreign: bool = False
    """It was built for another processor."""


def environment() -> Finding:
    """This Python is the course's own environment, and no other."""
    if sys.prefix == sys.base_prefix and "CONDA_PREFIX" not in os.environ:
        detail = f"{sys.executable} is no virtual environment: other programs' packages and the course's mix"
        return Finding("environment", "note", detail, "use .venv/bin/labsupport, which `make setup` makes")
    return Finding("environment", "ok", sys.prefix)


def versions(root: Path = ROOT) -> Finding:
    """Every package that the course names is installed, and every pin of constraints.txt holds."""
    if not (root / CONSTRAINTS).is_file():
        detail = f"there is no {CONSTRAINTS} beside the package, so versions were not compared"
        return Finding("versions", "note", detail, "install from a clone: git clone, then `make setup`")
    requirements = Requirements.read(root)
    missing = [name for name in requirements.names if installed(name) is None]
    pairs = [(name, pin, installed(name)) for name, pin in sorted(requirements.pins.items())]
    other = [f"{name} is {has}, not {pin}" for name, pin, has in pairs if has and has.split("+")[0] != pin]
    if missing or other:
        problems = [f"{name} is missing" for name in missing] + other
        more = f" … and {len(problems) - 5} more" if len(problems) > 5 else ""
        return Finding("versions", "fail", "; ".join(problems[:5]) + more, REPAIR)
    return Finding(
        "versions", "ok", f"all {sum(1 for _, _, has in pairs if has)} are as pinned in {CONSTRAINTS}"
    )


def torch() -> Finding:
    """torch can be imported, multiplies, and sees the GPU if there is one."""
    answer = _try(TRY_TORCH)
    if isinstance(answer, Broken):
        remedy = LESS_LOAD if answer.timed_out else f"`{PIP} uninstall -y torch`, then `make setup`"
        return Finding("torch", "fail", f"torch does not work: {answer.why}", remedy)
    detail = f"torch {answer['version']}, {answer['threads']} threads"
    if nvidia.gpus() and not answer["cuda"]:
        return Finding("torch", "note", f"{detail}; it does not see the NVIDIA GPU", CUDA_TORCH)
    return Finding("torch", "ok", detail + _seen(bool(answer["cuda"]), bool(answer["metal"])))


def llama(model: Path | None = None) -> Finding:
    """llama.cpp can be imported, decodes `model` if given, and was built for the GPU if there is one."""
    answer = _try(TRY_LLAMA)
    if isinstance(answer, Broken):
        remedy = LESS_LOAD if answer.timed_out else _rebuild()
        return Finding("llama.cpp", "fail", f"llama.cpp does not work: {answer.why}", remedy)
    detail = f"llama-cpp-python {answer['version']}"
    if model:
        decoded = _try(TRY_MODEL, str(model))
        if isinstance(decoded, Broken):
            remedy = f"`rm '{model}'`, then run `labsupport doctor` again: it makes the file anew"
            remedy = LESS_LOAD if decoded.timed_out else _rebuild() if decoded.foreign else remedy
            return Finding("llama.cpp", "fail", f"{detail} cannot decode {model}: {decoded.why}", remedy)
        detail += f" decodes {model.name}"
    if nvidia.gpus() and not answer["gpu"]:
        return Finding("llama.cpp", "note", f"{detail}; it was built without CUDA", CUDA_LLAMA)
    return Finding("llama.cpp", "ok", detail + (", built for a GPU" if answer["gpu"] else ""))


def gpu() -> Finding:
    """Which accelerator there is. None is needed, but one that its driver does not list is worth a note."""
    gpus = nvidia.gpus()
    names = [f"{one.name} ({one.memory_bytes / 2**30:.0f} GiB, driver {one.driver})" for one in gpus]
    if names:
        return Finding("gpu", "ok", ", ".join(names))
    if nvidia.is_present():
        remedy = (
            "run `nvidia-smi` and mend what it says: install NVIDIA's driver, or restart after an update; "
            "start a container with `--gpus all`"
        )
        return Finding("gpu", "note", "an NVIDIA GPU is present, but its driver does not list it", remedy)
    if sys.platform == "darwin":
        return Finding(
            "gpu", "ok", "no NVIDIA GPU; Metal is used where torch and llama.cpp were built for it"
        )
    return Finding("gpu", "ok", "none; everything runs on the CPU")


def installed(name: str) -> str | None:
    """The version of a package in this environment. What setuptools carries inside itself does not count."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    found = next(iter(importlib.metadata.distributions(name=name, path=folders)), None)
    return found.version if found else None


def _seen(cuda: bool, metal: bool) -> str:
    return ", sees the GPU" if cuda else ", sees Metal" if metal else ""


def _rebuild() -> str:
    """The commands that compile llama.cpp anew, although a wheel of it was kept."""
    return f"`rm -r '{cache_folder() / 'wheels'}'; {PIP} uninstall -y llama-cpp-python`, then `make setup`"


def _try(program: str, *words: str) -> dict[str, Any] | Broken:
    """What a Python program prints as JSON."""
    command = [sys.executable, "-c", program, *words]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        return Broken(f"it did not answer within {ANSWER_SECONDS:g} s", timed_out=True)
    if result.returncode == -signal.SIGILL:
        return Broken("its process ended with SIGILL: built for another processor?", foreign=True)
    if result.returncode < 0:
        return Broken(f"its process ended with {signal.Signals(-result.returncode).name}")
    if result.returncode > 0:
        return Broken((result.stderr.strip().splitlines() or ["it printed nothing"])[-1])
    answer: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return answer
