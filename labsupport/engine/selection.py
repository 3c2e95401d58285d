"""Which runner an engine takes, and why: the best that the machine has, said aloud.

Each engine reads files of its own kind and quantizes in its own ways, so what is asked for also decides:
llama reads GGUF files, bnb reads Hugging Face checkpoints and quantizes them as it loads them.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labsupport.engine.config import BNB_QUANTIZATIONS, EngineName
from labsupport.errors import LabsupportError
from labsupport.models import QUANTS

Device = Literal["cuda", "metal", "cpu"]
Engine = Literal["llama", "bnb"]

QUANTIZATIONS: dict[Engine, tuple[str, ...]] = {"llama": QUANTS, "bnb": BNB_QUANTIZATIONS}
"""What each engine can serve a model in. The default comes from `DEFAULT_QUANTIZATION`."""
DEFAULT_QUANTIZATION: dict[Engine, str] = {"llama": "q4_k_m", "bnb": "nf4"}


class QuantizationRefused(LabsupportError):
    """A quantization, or a kind of file, that the engine asked for cannot serve."""


@dataclass(frozen=True, slots=True)
class Selection:
    """`reason` is a sentence for the reader; `quantization` is empty where a file brings its own."""

    engine: Engine
    device: Device
    reason: str
    quantization: str = ""


def choose(
    wanted: EngineName,
    quantization: str,
    *,
    has_checkpoint: bool,
    has_cuda: bool,
    torch_has_cuda: bool,
    llama_offloads: bool,
    n_gpu_layers: int,
) -> tuple[Engine, str]:
    """Engine and quantization for a model by name.

    quantization: "" takes the engine's default. has_checkpoint: the model is more than a GGUF file.
    torch_has_cuda: torch was built with CUDA. The others are as in `select`.
    Raises QuantizationRefused, with what would have been right.
    """
    able = [
        engine
        for engine, quantizations in QUANTIZATIONS.items()
        if not quantization or quantization in quantizations
    ]
    if not able:
        raise QuantizationRefused(
            f"there is no quantization {quantization!r}",
            allowed="; ".join(f"{', '.join(names)} ({engine})" for engine, names in QUANTIZATIONS.items()),
        )
    if wanted != "auto" and wanted not in able:
        raise QuantizationRefused(
            f"the {wanted} engine does not serve {quantization}",
            allowed=f"{', '.join(QUANTIZATIONS[wanted])} with --engine {wanted}",
            remedy=f"--engine {able[0]} serves {quantization}.",
        )
    if not has_checkpoint and (wanted == "bnb" or able == ["bnb"]):
        raise QuantizationRefused(
            "the bnb engine reads a Hugging Face checkpoint, and this model is a GGUF file only",
            remedy="--engine llama serves GGUF files.",
        )
    engine: Engine
    if wanted != "auto":
        engine = wanted
    elif len(able) == 1:
        engine = able[0]
    else:
        gpu_is_for_torch = has_cuda and torch_has_cuda and not llama_offloads and n_gpu_layers != 0
        engine = "bnb" if gpu_is_for_torch and has_checkpoint else "llama"
    return engine, quantization or DEFAULT_QUANTIZATION[engine]


def select(
    wanted: EngineName, *, has_cuda: bool, is_metal: bool, llama_offloads: bool, n_gpu_layers: int
) -> Selection:
    """The device for a GGUF file.

    has_cuda: the machine has an NVIDIA GPU. is_metal: it is a Mac with Apple's GPU. llama_offloads: llama.cpp
    was built with a GPU backend. n_gpu_layers: 0 keeps everything on the CPU.
    """
    asked = "llama was asked for" if wanted == "llama" else "auto"
    if n_gpu_layers == 0 and (has_cuda or is_metal):
        return Selection("llama", "cpu", f"{asked}: llama.cpp on the CPU, because n_gpu_layers is 0")
    if has_cuda and llama_offloads:
        return Selection("llama", "cuda", f"{asked}: llama.cpp on the NVIDIA GPU, which its build supports")
    if has_cuda:
        return Selection(
            "llama",
            "cpu",
            f"{asked}: llama.cpp on the CPU: there is an NVIDIA GPU, but this llama.cpp has no CUDA "
            "that works (`labsupport doctor` says why)",
        )
    if is_metal and llama_offloads:
        return Selection("llama", "metal", f"{asked}: llama.cpp on Apple's GPU through Metal")
    return Selection("llama", "cpu", f"{asked}: llama.cpp on the CPU; no GPU was found that it can use")


def bnb_selection(wanted: EngineName, quantization: str, *, has_cuda: bool, n_gpu_layers: int) -> Selection:
    """The device for a checkpoint. has_cuda: torch can run on an NVIDIA GPU here."""
    quantization = quantization or DEFAULT_QUANTIZATION["bnb"]
    asked = "bnb was asked for" if wanted == "bnb" else "auto"
    what = (
        f"bitsandbytes {quantization}" if quantization in ("nf4", "int8") else f"transformers {quantization}"
    )
    if has_cuda and n_gpu_layers != 0:
        why = "" if wanted == "bnb" else ", because llama.cpp cannot use it here or does not serve this"
        return Selection("bnb", "cuda", f"{asked}: {what} on the NVIDIA GPU{why}", quantization)
    why = "because n_gpu_layers is 0" if has_cuda else "for torch finds no GPU that it can use"
    return Selection("bnb", "cpu", f"{asked}: {what} on the CPU, which is slow, {why}", quantization)


def torch_has_cuda() -> bool:
    """Whether the installed torch was built with CUDA; found out without importing it."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    version = Path(found.origin).with_name("version.py")
    return version.is_file() and bool(re.search(r"^cuda\b.*= '", version.read_text("utf-8"), re.MULTILINE))
