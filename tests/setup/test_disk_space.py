"""Every disk that set-up writes to is looked at before anything is downloaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from labsupport.errors import LabsupportError
from labsupport.machine.setup import llama_wheel, needs, steps
from labsupport.machine.setup.session import Session

ROOT = Path(__file__).parents[2]
GIB = 2**30
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """What set-up reads of a clone, on a computer where nothing has to be compiled."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for file in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, folder)
    monkeypatch.setattr(llama_wheel, "kept", lambda folder: folder)
    return folder


def look(clone: Path, *, gpu: bool = False) -> None:
    steps.look(Session(root=clone, gpu=gpu, cpu_index="", steps=1))


@pytest.mark.parametrize(("gpu", "needed"), [(False, "5.0 GiB"), (True, "16.0 GiB")])
def test_a_disk_that_is_too_small_stops_set_up_before_anything_is_downloaded(clone, monkeypatch, gpu, needed):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 * GIB, 99 * GIB, GIB))
    with pytest.raises(LabsupportError) as refused:
        look(clone, gpu=gpu)
    assert refused.value.problem.startswith("Nothing was downloaded, because something is missing:")
    assert f"{needed} of free disk space are needed at " in refused.value.problem
    assert "and 1.0 GiB are free" in refused.value.problem
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("variable", "needed"), [("LABSUPPORT_CACHE", "5.0"), ("PIP_CACHE_DIR", "2.0"), ("TMPDIR", "2.0")]
)
def test_a_small_disk_that_only_one_setting_points_at_is_found(
    clone, tmp_path, monkeypatch, variable, needed
):
    small = tmp_path / "small"
    small.mkdir()
    free = {True: GIB, False: 100 * GIB}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free[path.is_relative_to(small)]))
    monkeypatch.setattr(needs, "_device", lambda path: int(path.is_relative_to(small)))
    monkeypatch.setattr(tempfile, "tempdir", None)  # what Python remembers of an earlier TMPDIR
    look(clone)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv(variable, str(small))
    with pytest.raises(LabsupportError) as refused:
        look(clone)
    assert f"{needed} GiB of free disk space are needed at {small}" in refused.value.problem
    assert refused.value.problem.count("are needed") == 1
    assert "PIP_CACHE_DIR and TMPDIR" in refused.value.problem


def test_what_is_installed_already_needs_no_room(clone, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 * GIB, 100 * GIB, 0))
    session = Session(root=clone, gpu=False, cpu_index="", steps=1)
    session.venv.mkdir()
    session.stamps.finish("packages", "as pinned", True)
    steps.look(session)


def test_pips_cache_is_where_pip_keeps_it(monkeypatch):
    monkeypatch.delenv("PIP_NO_CACHE_DIR", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # a configuration file could name another
    answer = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True)
    assert str(needs.pip_cache()) == answer.stdout.strip()
