"""`transformers serve`, with continuous batching over its paged cache.

It computes in bf16 or fp32, not on packed 4-bit weights: it serves the checkpoint that the GGUF file was made
of, so it is compared on `pocket` alone (`synthetic-0.3b` has no checkpoint). Blocks, page size and tokens per
batch are set, because sizing them by itself took it 21 to 30 s on a CPU.
It has no `ignore_eos`; an end token of −1 in the request's generation configuration does the same.
Source: `transformers/cli/serve.py` and `cli/serving/completion.py` of version 5.23.0.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.contenders.contender import Setup

BLOCK_TOKENS = 32
BATCH_TOKENS = 512


@dataclass(frozen=True)
class TransformersServe:
    """The program of this environment."""

    name: str = "transformers-serve"
    ready_path: str = "/health"

    @property
    def _binary(self) -> str:
        beside = Path(sys.executable).with_name("transformers")
        return str(beside) if beside.is_file() else shutil.which("transformers") or "transformers"

    def lack(self, setup: Setup) -> str:
        if setup.checkpoint is None:
            return f"{setup.model} exists as a GGUF file only"
        return "" if shutil.which(self._binary) else "transformers is not installed. `make setup` does it."

    def version(self) -> str:
        return metadata.version("transformers")

    def command(self, setup: Setup, port: int) -> list[str]:
        words = [self._binary, "serve", str(setup.checkpoint), "--host", "127.0.0.1", "--port", str(port)]
        words += ["--continuous-batching", "--device", "cpu", "--cb-block-size", str(BLOCK_TOKENS)]
        words += ["--cb-num-blocks", str(setup.kv_cells // BLOCK_TOKENS)]
        return [*words, "--cb-max-batch-tokens", str(BATCH_TOKENS)]

    def environment(self, setup: Setup) -> dict[str, str]:
        return {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(setup.threads)}

    def model_name(self, setup: Setup) -> str | None:
        return str(setup.checkpoint)

    def extra(self, setup: Setup) -> dict[str, Any]:
        config = {"do_sample": False, "eos_token_id": -1}
        return {"generation_config": json.dumps(config), "stream_options": None}
