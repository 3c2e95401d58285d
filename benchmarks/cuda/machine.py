"""What a measurement on a GPU was made on and with. Asks the driver and the installed packages; no torch."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from benchmarks import host
from labsupport.errors import LabsupportError
from labsupport.machine import detect, nvidia

PACKAGES = ("torch", "transformers", "bitsandbytes", "llama-cpp-python")


def identity(device: str) -> dict[str, Any]:
    """What must be the same for two measurements to be compared, besides the code."""
    machine = detect.detect()
    gpu: dict[str, Any] = {"name": "no GPU: figures of the harness alone"}
    if device == "cuda":
        first = gpu_or_refuse()
        gpu = {
            "name": first.name,
            "memory_bytes": first.memory_bytes,
            "driver": first.driver,
            "compute_capability": first.compute_capability,
        }
    return {
        "gpu": gpu,
        "cpu": machine.cpu,
        "usable_cores": machine.usable_cores,
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def code() -> str:
    """The digest of our engine's source: it belongs to the identity of our own figures, not of a peer's."""
    return host.code_digest()


def gpu_or_refuse() -> nvidia.Gpu:
    """The first NVIDIA GPU. Raises LabsupportError if there is none, or if its driver does not answer."""
    found = nvidia.gpus()
    if found:
        return found[0]
    if nvidia.is_present():
        raise LabsupportError(
            "there is an NVIDIA GPU, but its driver does not answer", remedy="See what `nvidia-smi` says."
        )
    raise LabsupportError(
        "there is no NVIDIA GPU in this computer, so there is nothing to measure",
        remedy="Run it on a computer that has one; benchmarks/README.md says how, also without a network. "
        "`make bench` measures on the CPU.",
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
