"""Quantize a GGUF file with llama.cpp's own quantizer, in a process of its own.

A native abort then ends only that process, and llama.cpp's log is shown only when something went wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from labsupport.anatomy import gguf_header
from labsupport.errors import LabsupportError

# Numbers of llama.cpp's `llama_ftype`.
FILE_TYPES = {"q8_0": 7, "q2_k": 10, "q4_k_m": 15}
_THREADS = 2
_PROBE_BYTES = 1 << 20  # more than is left free by a write that failed


def quantize(source: Path, target: Path, quant: str) -> None:
    """Write the 16-bit GGUF file `source` as `target`, quantized by the recipe `quant` (see `FILE_TYPES`).

    Raises the system's `OSError` if the disk takes no more, `LabsupportError` if anything else fails.
    """
    gguf_header.read(source)
    command = [sys.executable, "-m", "labsupport.models.quantize", str(source), str(target), quant]
    finished = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )
    if finished.returncode:
        _write_on(target)
        last = (finished.stderr or finished.stdout).strip().splitlines()[-3:]
        raise LabsupportError(
            f"llama.cpp could not quantize {source} to {quant} (status {finished.returncode}): "
            + " | ".join(last)
        )


def _write_on(target: Path) -> None:
    """Go on writing where llama.cpp failed: it says only "iostream error", the system says why."""
    with target.open("ab") as file:
        file.write(bytes(_PROBE_BYTES))


def _main(source: str, target: str, quant: str) -> int:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[quant]
    params.nthread = _THREADS
    return int(llama_cpp.llama_model_quantize(source.encode(), target.encode(), params))


if __name__ == "__main__":
    raise SystemExit(_main(*sys.argv[1:]))
