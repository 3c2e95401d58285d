"""Which runner an engine takes, and why: the best that the machine has, said aloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labsupport.engine.config import EngineName

Device = Literal["cuda", "metal", "cpu"]


@dataclass(frozen=True, slots=True)
class Selection:
    """`reason` is a sentence for the reader."""

    engine: Literal["llama"]
    device: Device
    reason: str


def select(
    wanted: EngineName, *, has_cuda: bool, is_metal: bool, llama_offloads: bool, n_gpu_layers: int
) -> Selection:
    """Choose a runner.

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
