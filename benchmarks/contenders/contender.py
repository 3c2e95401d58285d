"""What a comparison needs to know of a server: how to start it, when it is ready, how to ask it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is the same for all contenders.

    context_tokens: the longest prompt and answer; kv_cells: tokens' worth of KV cache that all share.
    end_tokens: those that end an answer, for peers that cannot simply be told to ignore them.
    """

    model: str
    gguf: Path
    checkpoint: Path | None
    threads: int
    slots: int
    context_tokens: int
    kv_cells: int
    end_tokens: tuple[int, ...]


class Contender(Protocol):
    """A server. `lack` says what is missing to run it here, and how to get it; "" if nothing is."""

    @property
    def name(self) -> str: ...

    @property
    def ready_path(self) -> str: ...

    def lack(self, setup: Setup) -> str: ...

    def version(self) -> str: ...

    def command(self, setup: Setup, port: int) -> list[str]: ...

    def environment(self, setup: Setup) -> dict[str, str]: ...

    def model_name(self, setup: Setup) -> str | None:
        """What to call the model in a request; None for the only one that it lists."""
        ...

    def extra(self, setup: Setup) -> dict[str, Any]:
        """Fields of each request: greedy, and as many tokens as were asked for, whatever the model says."""
        ...


def flags(contender: Contender, setup: Setup) -> list[str]:
    """The command as it is written down: without the folders of this machine."""
    return [Path(word).name if word.startswith("/") else word for word in contender.command(setup, 0)]
