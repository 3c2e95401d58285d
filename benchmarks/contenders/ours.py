"""Our own server, at its defaults but for what all contenders are given alike."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders.contender import Setup
from benchmarks.host import code_digest
from labsupport import __version__
from labsupport.server.run import served_name


@dataclass(frozen=True)
class Ours:
    """`labsupport serve`. ledger: where it writes down every request, if anywhere."""

    name: str = "ours"
    ledger: Path | None = None
    ready_path: str = "/health/ready"

    def lack(self, setup: Setup) -> str:
        return ""

    def version(self) -> str:
        return f"{__version__} ({code_digest()})"

    def command(self, setup: Setup, port: int) -> list[str]:
        words = [sys.executable, "-m", "labsupport", "serve", "--engine", "llama", "--gpu-layers", "0"]
        words += ["--model", str(setup.gguf), "--port", str(port), "--threads", str(setup.threads)]
        words += ["--slots", str(setup.slots), "--context", str(setup.context_tokens), "--debug"]
        return words + (["--ledger", str(self.ledger)] if self.ledger else [])

    def environment(self, setup: Setup) -> dict[str, str]:
        return {}

    def model_name(self, setup: Setup) -> str | None:
        return served_name(str(setup.gguf))

    def extra(self, setup: Setup) -> dict[str, Any]:
        return {"temperature": 0, "ignore_eos": True}
