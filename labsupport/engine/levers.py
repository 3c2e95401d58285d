"""The engine's levers as a table: name, what it can be, default, and what it does.

Right means: nothing is written here that `EngineConfig` says already. The command line and the tests read
this table, so a lever that is added there can be turned everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args, get_type_hints

import msgspec

from labsupport.engine.config import EngineConfig, lever_metas

_SHORT_OPTIONS = {"context_tokens": "context", "patience_seconds": "patience", "n_gpu_layers": "gpu_layers"}


@dataclass(frozen=True, slots=True)
class Lever:
    """One of them.

    field: its name in `EngineConfig`. kind: what its value is read with. choices: none means a number.
    """

    field: str
    kind: type[int] | type[float] | type[str]
    choices: tuple[str, ...]
    default: int | float | str
    text: str

    @property
    def option(self) -> str:
        """On the command line, and with underscores in `labsupport.serve(...)`: `--step-tokens`."""
        return "--" + _SHORT_OPTIONS.get(self.field, self.field).replace("_", "-")


def levers() -> Iterator[Lever]:
    """All of them, in the order of `EngineConfig`."""
    hints = get_type_hints(EngineConfig)
    defaults = {field.name: field.default for field in msgspec.structs.fields(EngineConfig)}
    for name, meta in lever_metas().items():
        choices = get_args(hints[name])
        kind = str if choices else hints[name]
        yield Lever(name, kind, choices, defaults[name], meta.description or "")
