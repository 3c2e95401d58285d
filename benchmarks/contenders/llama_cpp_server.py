"""`llama_cpp.server`, the server that comes with llama-cpp-python: one request at a time.

Its packages are not part of this course's environment, so it runs from one of its own, given with
`--llama-cpp-python PYTHON` or made by `python -m benchmarks.make_peer`.
Two defaults are changed in its favour: `--interrupt_requests false`, without which each new request cuts off
the one that is being answered, and `--logits_all false`, without which it computes logits for every token of
a prompt. `--cache` stays off: what a prompt has in common with the one before is kept without it.
It has no `ignore_eos`; a bias of −100 on each end token does the same. Streams carry no usage.
Source: `llama_cpp/server/settings.py` and `types.py` of version 0.3.36.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders.contender import Setup

HOW_TO_GET = "`.venv/bin/python -m benchmarks.make_peer` makes an environment for it, outside the project's"


@dataclass(frozen=True)
class LlamaCppServer:
    """python: the interpreter of an environment that has `llama-cpp-python[server]`."""

    python: str
    name: str = "llama_cpp.server"
    ready_path: str = "/v1/models"

    def lack(self, setup: Setup) -> str:
        if not Path(self.python).is_file():
            return f"there is no environment for it at {self.python}. {HOW_TO_GET}."
        tried = self._python("import llama_cpp.server.app")
        return "" if tried.returncode == 0 else f"{self.python} has not all of its packages. {HOW_TO_GET}."

    def version(self) -> str:
        return self._python("import llama_cpp; print(llama_cpp.__version__)").stdout.strip()

    def command(self, setup: Setup, port: int) -> list[str]:
        words = [self.python, "-m", "llama_cpp.server", "--model", str(setup.gguf), "--model_alias", "bench"]
        words += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", str(setup.context_tokens)]
        words += ["--n_threads", str(setup.threads), "--n_threads_batch", str(setup.threads)]
        words += ["--n_gpu_layers", "0", "--flash_attn", "true", "--logits_all", "false"]
        return [*words, "--interrupt_requests", "false", "--verbose", "false"]

    def environment(self, setup: Setup) -> dict[str, str]:
        return {}

    def model_name(self, setup: Setup) -> str | None:
        return "bench"

    def extra(self, setup: Setup) -> dict[str, Any]:
        # Its streams carry no usage whatever is asked, so it is not asked.
        bias = {str(token): -100.0 for token in setup.end_tokens}
        return {"temperature": 0, "logit_bias": bias, "stream_options": None}

    def _python(self, code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.python, "-c", code], capture_output=True, text=True, timeout=120)
