"""The models that have a name: bundled, on the Hugging Face hub, or made of random numbers."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from labsupport.errors import LabsupportError

BUNDLED_WEIGHTS = Path(__file__).parents[1] / "pocket" / "weights"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of the catalogue.

    `repository` is its name on the hub, `revision` a commit there and `files` the SHA-256 of each file, both
    empty while nobody has pulled it; `sheet` names the published shape of a synthetic model.
    """

    name: str
    kind: Literal["bundled", "hub", "synthetic"]
    summary: str
    licence: str = ""
    repository: str = ""
    revision: str = ""
    files: dict[str, str] = field(default_factory=dict)
    sheet: str = ""


@cache
def entries() -> dict[str, Entry]:
    """All entries by name, in the order of the file."""
    raw = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))
    return {name: Entry(name=name, **fields) for name, fields in raw.items()}


def entry(name: str) -> Entry:
    """The entry of that name; an unknown one is an error that lists what exists."""
    if name not in entries():
        raise LabsupportError(
            f"There is no model {name!r}.",
            allowed=", ".join(entries()) + ", or the path of a .gguf file or a Hugging Face directory",
            remedy="`labsupport models list` shows them all.",
        )
    return entries()[name]
