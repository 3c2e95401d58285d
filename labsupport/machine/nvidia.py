"""The NVIDIA GPUs of this computer: whether there is one, and what its driver says of it.

Set-up, the engine, the doctor and the tests all ask here, so that they cannot disagree. Set-up asks before
anything is installed: nothing but the standard library is imported.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

DEVICES = Path("/dev")
DRIVERS_LIST = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, as its driver describes it."""

    name: str
    memory_bytes: int
    driver: str
    compute_capability: str


def is_present() -> bool:
    """Whether an NVIDIA GPU is present: a device node, the driver's list, or `nvidia-smi -L` (WSL).

    The node `/dev/nvidiactl` alone is the driver without a GPU. A GPU that is present may still have a
    driver that does not work: then `gpus` is empty.
    """
    if any(re.fullmatch(r"nvidia\d+", node.name) for node in DEVICES.glob("nvidia*")):
        return True
    if DRIVERS_LIST.is_dir() and any(DRIVERS_LIST.iterdir()):
        return True
    return "GPU" in _driver_says("-L")


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that the driver lists; none where there is no driver, or where it fails."""
    query = "--query-gpu=name,memory.total,driver_version,compute_cap"
    lines = _driver_says(query, "--format=csv,noheader,nounits").splitlines()
    rows = [[field.strip() for field in line.split(",")] for line in lines]
    return tuple(
        Gpu(name=row[0], memory_bytes=int(row[1]) * 2**20, driver=row[2], compute_capability=row[3])
        for row in rows
        if len(row) == 4 and row[1].isdigit()
    )


def _driver_says(*words: str) -> str:
    """What `nvidia-smi` prints, or nothing if it is missing, fails or hangs."""
    try:
        result = subprocess.run(["nvidia-smi", *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout if result.returncode == 0 else ""
