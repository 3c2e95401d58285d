"""What a measurement was made on and with: the machine, the versions, and the very code of this server."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from labsupport.machine import detect

PACKAGES = ("llama-cpp-python", "transformers", "torch", "uvicorn", "fastapi", "httpx")
ROOMS = ("anatomy", "engine", "server", "loadtest")
"""Rooms of labsupport whose code can change what is measured."""
_VARIABLES = ("OMP_", "GOMP_", "KMP_", "GGML_", "LLAMA_ARG_")


@cache
def identity() -> dict[str, Any]:
    """What must be the same for two measurements to be compared."""
    machine = detect.detect()
    return {
        "cpu": machine.cpu,
        "instruction_sets": list(machine.instruction_sets),
        "usable_cores": machine.usable_cores,
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "code": code_digest(),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)
        },
    }


@cache
def description() -> dict[str, Any]:
    """What else a reader may want to know of the machine. No name of it, nor of who uses it."""
    machine = detect.detect()
    return {
        "system": machine.system,
        "physical_cores": machine.physical_cores,
        "logical_cores": machine.logical_cores,
        "memory_bytes": machine.memory_bytes,
        "gpus": [gpu.name for gpu in machine.gpus],
    }


@cache
def code_digest() -> str:
    """A digest of this server's own source: pairs from before a change do not go with later ones."""
    package = Path(detect.__file__).parents[1]
    digest = hashlib.sha256()
    for room in ROOMS:
        for file in sorted((package / room).rglob("*.py")):
            digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def file_digest(path: Path) -> str:
    """SHA-256 of a model file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
