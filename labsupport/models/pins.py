"""Which revision of a hub model this computer uses, and the SHA-256 of each of its files.

The catalogue may carry both; where it does not, they are recorded at first contact in `pins.json` in the
cache, and every later pull must match them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from labsupport.anatomy.model_file_error import ModelFileError
from labsupport.models.cache import appearing, cache_directory, locked, usable
from labsupport.models.catalogue import entry


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A commit, its files' sizes in bytes and SHA-256, and the day they were recorded."""

    revision: str
    files: dict[str, str]
    sizes: dict[str, int]
    recorded: str


def pins_file() -> Path:
    """Where this computer's pins are kept."""
    return cache_directory() / "pins.json"


def pin_of(name: str) -> Pin | None:
    """The pin of a model on this computer, or None if it has none."""
    fields = _read().get(name)
    return Pin(**fields) if fields else None


def record_pin(name: str, *, revision: str, files: dict[str, str], sizes: dict[str, int]) -> Pin:
    """Keep what was seen, in place of an earlier pin of that model."""
    pin = Pin(revision=revision, files=files, sizes=sizes, recorded=date.today().isoformat())
    with locked(pins_file()):
        pins = _read() | {entry(name).name: asdict(pin)}
        with appearing(pins_file()) as unfinished:
            unfinished.write_text(json.dumps(pins, indent=1) + "\n", encoding="utf-8")
    return pin


def _read() -> dict[str, dict[str, Any]]:
    with usable(pins_file().parent):
        if not pins_file().is_file():
            return {}
        text = pins_file().read_text(encoding="utf-8")
    try:
        return dict(json.loads(text))
    except ValueError as error:
        raise ModelFileError(
            pins_file(), f"it is not valid JSON ({error}).", remedy="Delete it and pin the models again."
        ) from None
