"""Published shapes and hardware figures, each with the page it was read from and the day.

A number without a source is not in the sheets; what no source gave is None, not a guess. Each figure of a
device has a quotation that contains it, with who published that and the day on which it held.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
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
class Evidence:
    """Where figures of a device were read. `figures`: name → (the number as quoted, factor to its unit)."""

    figures: dict[str, tuple[str, float]]
    url: str
    publisher: str
    quotation: str
    read: date
    as_of: date


@dataclass(frozen=True, kw_only=True)
class HardwareSheet:
    """What a vendor promises of a device. `bf16_flops_per_second` is dense; None if no source gave it.

    `tier` is the tier of the machines that decode with it: `cpu`, `apple` or `gpu`.
    """

    name: str
    tier: str
    memory_bytes: int
    bandwidth_bytes_per_second: int
    evidence: tuple[Evidence, ...]
    bf16_flops_per_second: int | None = None
    note: str = ""

    @property
    def source(self) -> str:
        """The page that the bandwidth was read from."""
        return next(one.url for one in self.evidence if "bandwidth_bytes_per_second" in one.figures)

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        days = [{"read": one.read.isoformat(), "as_of": one.as_of.isoformat()} for one in self.evidence]
        evidence = [asdict(one) | day for one, day in zip(self.evidence, days, strict=True)]
        return asdict(self) | {"source": self.source, "evidence": evidence}


def model_sheet(name: str) -> ModelSheet:
    """The published shape of that name, such as `llama-3.1-8b`."""
    entry = _entry("models", name)
    config = entry.pop("config")
    return ModelSheet(name=name, shape=ModelShape.from_config(config), config=config, **entry)


def hardware(name: str) -> HardwareSheet:
    """The device of that name, such as `h100-sxm`."""
    entry = _entry("hardware", name)
    evidence = tuple(Evidence(**one) for one in entry.pop("evidence"))
    return HardwareSheet(evidence=evidence, **entry)


def devices_of_tier(tier: str) -> tuple[HardwareSheet, ...]:
    """The devices of that tier (`cpu`, `apple` or `gpu`), from the slowest memory to the fastest."""
    found = (hardware(name) for name in names("hardware"))
    return tuple(
        sorted((one for one in found if one.tier == tier), key=lambda one: one.bandwidth_bytes_per_second)
    )


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
