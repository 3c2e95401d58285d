"""Building llama.cpp's library with CUDA where nothing can be downloaded, for the one GPU that is there.

For one architecture, and as machine code only: what would be compiled for others, and as PTX for those to
come, is most of the time that a build takes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_PROJECT = Path(__file__).parent
LIBRARY = Path("bin") / "libllama.so"


def architecture(compute_capability: str) -> str:
    """CMake's word for a GPU's machine code alone: `90-real` for 9.0 (CMAKE_CUDA_ARCHITECTURES)."""
    major, minor = compute_capability.split(".")
    return f"{int(major)}{int(minor)}-real"


def commands(
    sources: Path, build: Path, *, compute_capability: str, jobs: int, extra: tuple[str, ...] = ()
) -> tuple[list[str], list[str]]:
    """Configure, and build. extra: more arguments for CMake, which win."""
    configure = ["cmake", "-S", str(_PROJECT), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release"]
    configure += ["-G", "Ninja"] if shutil.which("ninja") else []
    configure += [
        f"-DLLAMA_CPP={sources}",
        "-DGGML_CUDA=ON",
        f"-DCMAKE_CUDA_ARCHITECTURES={architecture(compute_capability)}",
        "-DGGML_CUDA_NCCL=OFF",  # for several GPUs
        "-DGGML_CCACHE=OFF",
        *extra,
    ]
    return configure, ["cmake", "--build", str(build), "--parallel", str(jobs), "--target", "llama"]


def environment(build: Path, binding: Path, inherited: dict[str, str]) -> dict[str, str]:
    """What makes `import llama_cpp` find the brought binding and the built library."""
    path = os.pathsep.join(filter(None, [str(binding), inherited.get("PYTHONPATH", "")]))
    return inherited | {"PYTHONPATH": path, "LLAMA_CPP_LIB_PATH": str(build / LIBRARY.parent)}
