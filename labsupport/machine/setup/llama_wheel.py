"""llama-cpp-python, compiled for this computer and kept for the next time.

The package comes as source only. Right means: only what the course uses is compiled (the library, without
tools, server, tests and examples), with CUDA where there is a GPU and a CUDA compiler; and the wheel is kept
in a folder whose name says all that it depends on, so that it is built once per computer, not once per clone.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path

from labsupport.machine.setup.stamps import fingerprint

TRIMMED = (
    "LLAVA_BUILD",
    *(f"LLAMA_BUILD_{part}" for part in ("TOOLS", "SERVER", "TESTS", "EXAMPLES", "APP")),
)


def cmake_arguments(*, cuda: bool, extra: str = "") -> str:
    """What CMake is told: the trimmed build, CUDA if asked for, and `extra` last, so that it wins.

    On macOS llama.cpp switches Metal on by itself.
    """
    arguments = [f"-D{part}=OFF" for part in TRIMMED]
    if cuda:
        arguments.append("-DGGML_CUDA=ON")
    return " ".join([*arguments, *extra.split()])


def has_cuda_compiler() -> bool:
    """Whether llama.cpp can be built for CUDA here: `nvcc` is on PATH or where CUDACXX says."""
    return shutil.which(os.environ.get("CUDACXX", "nvcc")) is not None


def folder(cache: Path, *, version: str, arguments: str) -> Path:
    """Where the wheel of this version and these flags is kept for this kind of computer.

    llama.cpp is compiled for the very processor that it is built on, so the processor belongs to the name: a
    home folder shared by two machines must not hand one the other's instructions.
    """
    mark = fingerprint(arguments, sysconfig.get_platform(), _processor())
    return cache / "wheels" / f"llama-cpp-python-{version}-{mark}"


def kept(place: Path) -> Path | None:
    """The finished wheel in `place`, if there is one."""
    return next(iter(sorted(place.glob("llama_cpp_python-*.whl"))), None)


def keep(built: Path, place: Path) -> Path:
    """Move the wheel in the folder `built` to `place`, in one movement, and return where it is."""
    wheel = kept(built)
    if wheel is None:
        raise FileNotFoundError(f"no wheel in {built}")
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        shutil.rmtree(place)
    built.rename(place)
    return place / wheel.name


def _processor() -> str:
    """What distinguishes this processor from another that may lack some of its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        if platform.system() == "Darwin":
            return subprocess.run(command, capture_output=True, text=True).stdout.strip()
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
