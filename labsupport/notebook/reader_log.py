"""What the reader predicted and measured, kept from one session and lesson to the next.

One file of JSON lines in the reader's data directory, only ever appended to: an interrupted write costs at
most the last line, two notebooks can be open at once, and a line that cannot be read is passed over.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from labsupport.errors import LabsupportError


class LogUnwritableError(LabsupportError):
    """The reader's data directory cannot be written to."""


@dataclass(frozen=True)
class Entry:
    """One event. `value` is the guess or the measurement in `unit`; `at` is ISO 8601 in UTC."""

    event: Literal["predicted", "measured", "forgotten"]
    name: str
    at: str
    value: float | None = None
    unit: str = ""


def data_directory() -> Path:
    """Where the reader's own data lives: `LABSUPPORT_DATA`, else the XDG data directory."""
    if chosen := os.environ.get("LABSUPPORT_DATA"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "labsupport"


def log_path() -> Path:
    """The file of predictions and measurements."""
    return data_directory() / "predictions.jsonl"


def append(entry: Entry) -> None:
    """Add one event. Raises `LogUnwritableError` with the remedy when the disk refuses."""
    line = json.dumps(asdict(entry)) + "\n"
    path = log_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole_lines = not path.exists() or path.stat().st_size == 0 or path.read_bytes().endswith(b"\n")
        with path.open("a", encoding="utf-8") as file:
            file.write(line if whole_lines else "\n" + line)
    except OSError as error:
        raise LogUnwritableError(
            f"your prediction could not be stored in {path}: {error.strerror or error}",
            remedy="free some space, or point LABSUPPORT_DATA to a folder that you can write to",
        ) from error


def entries() -> list[Entry]:
    """Every event that can be read, oldest first."""
    try:
        lines = log_path().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(Entry(**json.loads(line)))
        except (TypeError, ValueError):
            continue
    return found
