"""What this computer is: its processor, memory, disk and accelerators, found without importing torch."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from labsupport.machine import cgroup, nvidia

INSTRUCTION_SETS = {
    "sse4_2": "SSE4.2",
    "avx": "AVX",
    "avx2": "AVX2",
    "f16c": "F16C",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx_vnni": "AVX-VNNI",
    "amx_tile": "AMX",
    "asimd": "NEON",
    "asimddp": "dot product",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
}
"""The flags of /proc/cpuinfo that decide how fast a quantized matrix product runs, and their usual names."""


@dataclass(frozen=True)
class Machine:
    """A computer, as far as running models is concerned. Memory and cores are what this process may use."""

    system: str
    cpu: str
    instruction_sets: tuple[str, ...]
    physical_cores: int
    logical_cores: int
    usable_cores: int
    memory_bytes: int
    available_memory_bytes: int
    memory_limited_by_container: bool
    unified_memory: bool
    disk_free_bytes: int
    gpus: tuple[nvidia.Gpu, ...]

    @property
    def tier(self) -> str:
        """Which of the course's tiers this is: `gpu`, `apple` or `cpu`."""
        if self.gpus:
            return "gpu"
        return "apple" if self.unified_memory else "cpu"


def detect(disk: Path | None = None) -> Machine:
    """Describe this computer; `disk` is a folder on the disk that counts (by default the home)."""
    memory = psutil.virtual_memory()
    limit = cgroup.memory_limit_bytes()
    total = memory.total if limit is None else min(memory.total, limit)
    logical = psutil.cpu_count() or 1
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=cpu_name(),
        instruction_sets=instruction_sets(),
        physical_cores=psutil.cpu_count(logical=False) or logical,
        logical_cores=logical,
        usable_cores=usable_cores(),
        memory_bytes=total,
        available_memory_bytes=min(memory.available, total),
        memory_limited_by_container=total < memory.total,
        unified_memory=platform.system() == "Darwin" and platform.machine() == "arm64",
        disk_free_bytes=shutil.disk_usage(existing(disk or Path.home())).free,
        gpus=nvidia.gpus(),
    )


def usable_cores() -> int:
    """Logical cores that this process may run on: the smaller of its CPU mask and its container's share."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    share = cgroup.core_limit()
    return allowed if share is None else max(1, min(allowed, math.ceil(share)))


def cpu_name() -> str:
    """The processor's model as it names itself."""
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instruction_sets() -> tuple[str, ...]:
    """The instruction sets that matter for matrix products, by their usual names."""
    if platform.system() == "Darwin":
        flags = _output("sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features").lower()
        found = {flag.replace(".", "_") for flag in flags.split()}
        return ("NEON",) if platform.machine() == "arm64" else _named(found)
    return _named(set((_cpuinfo("flags") or _cpuinfo("Features")).split()))


def existing(path: Path) -> Path:
    """The path itself, or its nearest parent that exists."""
    return next(place for place in (path, *path.resolve().parents) if place.exists())


def _named(flags: set[str]) -> tuple[str, ...]:
    return tuple(name for flag, name in INSTRUCTION_SETS.items() if flag in flags)


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == key), "")


def _output(*words: str) -> str:
    """What a command prints, or nothing if it is missing, fails or hangs."""
    try:
        result = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
