"""What has been done already: one stamp a step, with a fingerprint of everything the step depends on.

Right means: a step runs again exactly when one of its inputs has changed or when it was never finished.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def fingerprint(*inputs: object) -> str:
    """A short digest of a step's inputs; equal inputs give equal digests in every run."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Stamps:
    """The stamps of one environment, kept in one JSON file that is replaced in one movement."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._entries: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            self._entries = {}

    def result(self, step: str, print_of_inputs: str) -> Any | None:
        """What the step left when it was last finished with these inputs, or None if it must run."""
        entry = self._entries.get(step)
        if not isinstance(entry, dict) or entry.get("inputs") != print_of_inputs:
            return None
        return entry.get("result")

    def forget_all(self) -> None:
        """Every step has to be done again."""
        self._entries = {}

    def knows(self, step: str) -> bool:
        """Whether the step was ever finished here, with whatever inputs."""
        return step in self._entries

    def finish(self, step: str, print_of_inputs: str, result: Any) -> None:
        """Record that the step is done; `result` is anything but None that JSON can hold."""
        self._entries[step] = {"inputs": print_of_inputs, "result": result}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".tmp")
        draft.write_text(json.dumps(self._entries, indent=1))
        draft.replace(self.path)
