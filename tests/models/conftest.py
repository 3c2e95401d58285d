"""Checkpoints and made files that several tests of the model room read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from labsupport.models.catalogue import BUNDLED_WEIGHTS


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for files that are made once and only read."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def in_shared_cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run with the shared cache."""
    monkeypatch.setenv("LABSUPPORT_CACHE", str(shared_cache))
    return shared_cache


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run with an empty cache that the test may spoil."""
    monkeypatch.setenv("LABSUPPORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def own_pocket(tmp_path: Path) -> Path:
    """A copy of the bundled checkpoint that the test may spoil."""
    return Path(shutil.copytree(BUNDLED_WEIGHTS, tmp_path / "pocket"))
