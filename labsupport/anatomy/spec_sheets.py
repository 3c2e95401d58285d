"""Published shapes and hardware figures, each with the page it was read from and the day.

A number without a source is not in the sheets; what no source gave is None, not a guess.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from labsupport.anatomy.model_shape import ModelShape
from labsupport.errors import LabsupportError

_SHEETS = Path(__file__).parent / "sheets"


@dataclass(frozen=True, kw_only=True)
class ModelSheet:
    """A published model: its shape, the config numbers it was read from, and the source."""

    name: str
    shape: ModelShape
    config: dict[str, Any]
    source: str
    read: date
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class HardwareSheet:
    """What a vendor promises of a device. `bf16_flops_per_second` is dense; None if no source gave it."""

    name: str
    memory_bytes: int
    bandwidth_bytes_per_second: int
    source: str
    read: date
    bf16_flops_per_second: int | None = None
    note: str = ""


def model_sheet(name: str) -> ModelSheet:
    """The published shape of that name, such as `llama-3.1-8b`."""
    entry = _entry("models", name)
    config = entry.pop("config")
    return ModelSheet(name=name, shape=ModelShape.from_config(config), config=config, **entry)


def hardware(name: str) -> HardwareSheet:
    """The device of that name, such as `h100-sxm`."""
    return HardwareSheet(**_entry("hardware", name))


def names(sheet: str) -> tuple[str, ...]:
    """What there is: `names("models")` or `names("hardware")`."""
    return tuple(_load(sheet))


def _entry(sheet: str, name: str) -> dict[str, Any]:
    entries = _load(sheet)
    if name not in entries:
        raise LabsupportError(f"There is no {name!r} in the sheet of {sheet}.", allowed=", ".join(entries))
    return dict(entries[name])


@cache
def _load(sheet: str) -> dict[str, Any]:
    return tomllib.loads((_SHEETS / f"{sheet}.toml").read_text(encoding="utf-8"))
