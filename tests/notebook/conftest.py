"""Each test of the notebook room has a reader's data directory of its own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def reader_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory, as a new reader has."""
    folder = tmp_path / "reader"
    monkeypatch.setenv("LABSUPPORT_DATA", str(folder))
    return folder
