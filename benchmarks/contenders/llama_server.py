"""llama.cpp's own server, `llama-server`, of the same version as the library that ours runs on.

Its best documented flags for many callers: one KV cache that all slots share (`--kv-unified`, which is on by
default only where the number of slots is left to it), continuous batching and the prompt cache (both on by
default, written out here so that the results say so). Slots, cells and threads are ours. Its batch sizes stay
at its defaults, 2,048 and 512, which are best for its throughput.
Source: `tools/server/README.md` in the source archive of llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders.contender import Setup

HOW_TO_GET = (
    'benchmarks/README.md says how to build it ("Peers"); then --llama-server PATH, or put it on PATH'
)


@dataclass(frozen=True)
class LlamaServer:
    """binary: the program, by path or by name."""

    binary: str = "llama-server"
    name: str = "llama-server"
    ready_path: str = "/health"

    def lack(self, setup: Setup) -> str:
        return "" if shutil.which(self.binary) else f"there is no {self.binary}. {HOW_TO_GET}."

    def version(self) -> str:
        return version_of(self.binary)

    def command(self, setup: Setup, port: int) -> list[str]:
        words = [shutil.which(self.binary) or self.binary, "--model", str(setup.gguf)]
        words += ["--host", "127.0.0.1", "--port", str(port)]
        words += ["--threads", str(setup.threads), "--threads-batch", str(setup.threads)]
        words += ["--parallel", str(setup.slots), "--ctx-size", str(setup.kv_cells), "--kv-unified"]
        return [*words, "--cont-batching", "--cache-prompt", "--n-gpu-layers", "0", "--no-ui", "--offline"]

    def environment(self, setup: Setup) -> dict[str, str]:
        return {}

    def model_name(self, setup: Setup) -> str | None:
        return None

    def extra(self, setup: Setup) -> dict[str, Any]:
        return {"temperature": 0, "ignore_eos": True, "cache_prompt": True}


def version_of(binary: str) -> str:
    """What a llama.cpp program says of itself with `--version`, on one line."""
    found = shutil.which(binary)
    if not found:
        return ""
    said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60)
    lines = (said.stdout + said.stderr).splitlines()
    return next((line.strip() for line in lines if line.startswith("version")), "unknown")
