"""Where measurements are kept: one JSON file for each comparison, written anew after every pair.

Right means: a file never holds half a pair, and never pairs of different settings; a kill at any moment loses
at most the pair that was under way.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labsupport.errors import LabsupportError

FORMAT = 1
RESULTS = Path(__file__).parent / "results"


@dataclass
class Series:
    """The pairs of one comparison, as they stand on disk.

    settings: what must be the same for pairs to belong together: the host's processor, versions, flags, the
        file's digest, the load. host: what else is worth knowing of the machine.
    """

    path: Path
    experiment: str
    settings: dict[str, Any]
    host: dict[str, Any]
    pairs: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(
        cls, folder: Path, name: str, *, experiment: str, settings: dict[str, Any], host: dict[str, Any]
    ) -> Series:
        """The series of that name, with the pairs that are there already.

        Pairs that were measured with other settings are put aside, into `superseded/`, and said so.
        """
        settings = json.loads(json.dumps(settings))  # as they come back from the file
        series = cls(folder / f"{name}.json", experiment, settings, host)
        if series.path.exists():
            kept = read(series.path)
            if kept["settings"] == settings:
                series.pairs = kept["pairs"]
            else:
                changed = sorted(
                    key
                    for key in kept["settings"] | settings
                    if kept["settings"].get(key) != settings.get(key)
                )
                print(f"{name}: other settings than before ({', '.join(changed)}), so it begins again")
                _put_aside(series.path)
        return series

    def add(self, pair: dict[str, Any]) -> None:
        """Keep a finished pair."""
        self.pairs.append(pair)
        whole = {
            "format": FORMAT,
            "experiment": self.experiment,
            "settings": self.settings,
            "host": self.host,
            "pairs": self.pairs,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".json.part")
        with unfinished.open("w", encoding="utf-8") as file:
            json.dump(whole, file, separators=(",", ":"), ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.path)


def read(path: Path) -> dict[str, Any]:
    """One results file. Raises LabsupportError if it is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT or not {"experiment", "settings", "host", "pairs"} <= found.keys():
            raise ValueError("it has another format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabsupportError(
            f"{path} is no results file of this version: {error}",
            remedy="Move it out of the folder; the next run measures it again.",
        ) from error
    return found


def read_all(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All results in a folder, each with its `name`, by name."""
    return [read(path) | {"name": path.stem} for path in sorted(folder.glob("*.json"))]


def _put_aside(path: Path) -> None:
    target = path.parent / "superseded" / f"{path.stem}-{time.strftime('%Y%m%dT%H%M%S')}.json"
    target.parent.mkdir(exist_ok=True)
    path.replace(target)
