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
from pathlib import Path
from typing import Any

from labsupport.machine import detect
from labsupport.machine.doctor import REPAIR, Finding
from labsupport.machine.setup.requirements import CONSTRAINTS, Requirements

ROOT = Path(__file__).resolve().parents[2]
CUDA_REMEDY = "run `make setup ACCELERATOR=cuda`; it needs the driver, and `nvcc` to build llama.cpp"

TRY_TORCH = """
import json, torch
product = torch.ones(64, 64) @ torch.ones(64, 64)
assert float(product.sum()) == 64**3, "torch multiplies wrongly"
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(),
                  "cuda": torch.cuda.device_count(), "metal": torch.backends.mps.is_available()}))
"""

TRY_LLAMA = """
import json, math, sys
import llama_cpp
answer = {"version": llama_cpp.__version__, "gpu": bool(llama_cpp.llama_supports_gpu_offload())}
if sys.argv[1:]:
    model = llama_cpp.Llama(sys.argv[1], n_ctx=256, n_threads=1, n_gpu_layers=0, verbose=False)
    model.eval([1, 2, 3])
    logits = model.eval_logits[-1]
    assert len(logits) == model.n_vocab() and all(map(math.isfinite, logits)), "the logits are not finite"
    answer["decoded"] = True
print(json.dumps(answer))
"""


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
    if isinstance(answer, str):
        return Finding("torch", "fail", f"torch does not work: {answer}", REPAIR)
    detail = f"torch {answer['version']}, {answer['threads']} threads"
    if detect.nvidia_gpus() and not answer["cuda"]:
        return Finding("torch", "note", f"{detail}; it does not see the NVIDIA GPU", CUDA_REMEDY)
    return Finding("torch", "ok", detail + _seen(bool(answer["cuda"]), bool(answer["metal"])))


def llama(model: Path | None = None) -> Finding:
    """llama.cpp can be imported, decodes `model` if given, and was built for the GPU if there is one."""
    answer = _try(TRY_LLAMA, *([str(model)] if model else []))
    if isinstance(answer, str):
        remedy = (
            "build it for this computer: `.venv/bin/pip uninstall -y llama-cpp-python`, then `make setup`"
        )
        return Finding("llama.cpp", "fail", f"llama.cpp does not work: {answer}", remedy)
    detail = f"llama-cpp-python {answer['version']}" + (f" decodes {model.name}" if model else "")
    if detect.nvidia_gpus() and not answer["gpu"]:
        return Finding("llama.cpp", "note", f"{detail}; it was built without CUDA", CUDA_REMEDY)
    return Finding("llama.cpp", "ok", detail + (", built for a GPU" if answer["gpu"] else ""))


def gpu() -> Finding:
    """Which accelerator there is. None is needed."""
    gpus = detect.nvidia_gpus()
    names = [f"{one.name} ({one.memory_bytes / 2**30:.0f} GiB, driver {one.driver})" for one in gpus]
    if names:
        return Finding("gpu", "ok", ", ".join(names))
    if sys.platform == "darwin":
        return Finding(
            "gpu", "ok", "no NVIDIA GPU; Metal is used where torch and llama.cpp were built for it"
        )
    return Finding("gpu", "ok", "none; everything runs on the CPU")


def installed(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _seen(cuda: bool, metal: bool) -> str:
    return ", sees the GPU" if cuda else ", sees Metal" if metal else ""


def _try(program: str, *words: str) -> dict[str, Any] | str:
    """What a Python program prints as JSON, or, if it fails, why, in one line."""
    command = [sys.executable, "-c", program, *words]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return "it did not answer within 120 s"
    if result.returncode < 0:
        return (
            f"its process ended with {signal.Signals(-result.returncode).name}: built for another processor?"
        )
    if result.returncode > 0:
        return (result.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    answer: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return answer
