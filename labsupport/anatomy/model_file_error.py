"""The error for a model file that cannot be what its name says."""

from __future__ import annotations

from pathlib import Path

from labsupport.errors import LabsupportError


class ModelFileError(LabsupportError):
    """A model file is missing, truncated, corrupt, or of another kind."""

    def __init__(self, path: Path, problem: str, *, allowed: str = "", remedy: str = "") -> None:
        self.path = path
        super().__init__(
            f"{path}: {problem}",
            allowed=allowed,
            remedy=remedy or "Fetch or make it again; `labsupport models verify` checks what is cached.",
        )
