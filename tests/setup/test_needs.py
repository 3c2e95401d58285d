"""What is missing is named, with the command that brings it, before anything is downloaded."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labsupport.machine.setup import needs

ROOT = Path(__file__).parents[2]
SHELL_TOOLS = ("sh", "make", "sed", "id", "uname")


@pytest.fixture
def bare(tmp_path):
    """A folder to stand for PATH, with a shell and make in it, and no Python and no compiler."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in SHELL_TOOLS:
        (folder / name).symlink_to(shutil.which(name))
    return folder


@pytest.fixture
def clone(tmp_path):
    """What set-up reads of a clone, in a folder of its own."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "labsupport" / "machine" / "setup", folder / "labsupport" / "machine" / "setup")
    for file in (
        "Makefile",
        "pyproject.toml",
        "constraints.txt",
        "labsupport/__init__.py",
        "labsupport/errors.py",
    ):
        shutil.copy(ROOT / file, folder / file)
    for file in ("__init__.py", "nvidia.py"):
        shutil.copy(ROOT / "labsupport" / "machine" / file, folder / "labsupport" / "machine")
    return folder


def make(clone: Path, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`make setup` as a user with this PATH and nothing built before; also that nothing was begun."""
    surroundings = {"PATH": str(path), "HOME": str(clone.parent), **environment}
    result = subprocess.run(["make", "setup"], cwd=clone, env=surroundings, capture_output=True, text=True)
    assert not (clone / ".venv").exists()
    assert not (clone.parent / ".cache").exists()
    return result


def test_without_any_python_make_says_how_to_get_one(clone, bare):
    result = make(clone, bare)
    assert result.returncode != 0
    assert "No Python 3.11 or newer was found" in result.stdout
    assert "apt-get install -y python3 python3-venv" in result.stdout


def test_a_python_that_is_too_old_is_as_good_as_none(clone, bare):
    for name in ("python3.11", "python3"):
        (bare / name).write_text(
            "#!/bin/sh\nexit 1\n"
        )  # what `sys.exit(sys.version_info < (3, 11))` does in 3.10
        (bare / name).chmod(0o755)
    assert "No Python 3.11 or newer was found" in make(clone, bare).stdout


def test_without_a_compiler_nothing_is_downloaded_and_the_command_is_printed(clone, bare):
    (bare / "python3").symlink_to(os.path.realpath(sys.executable))
    result = make(clone, bare)
    assert result.returncode != 0
    assert "Nothing was downloaded" in result.stderr
    assert "No C compiler was found" in result.stderr
    assert "No C++ compiler was found" in result.stderr
    assert "apt-get install -y build-essential" in result.stderr


def test_a_compiler_that_cannot_compile_is_no_compiler(clone, bare):
    (bare / "python3").symlink_to(os.path.realpath(sys.executable))
    for name in ("cc", "c++"):
        (bare / name).write_text("#!/bin/sh\necho 'xcrun: invalid active developer path' >&2; exit 1\n")
        (bare / name).chmod(0o755)
    result = make(clone, bare)
    assert "cannot compile a small program: xcrun: invalid active developer path" in result.stderr


def test_everything_that_is_missing_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    found = needs.lacks(root=tmp_path, cache=tmp_path / "cache", free_bytes=10**18, compiler=True)
    assert [lack.problem.split()[1] for lack in found[:2]] == ["C", "C++"]
    assert "of free disk space are needed" in found[2].problem
    assert all(lack.remedy for lack in found)


def test_the_free_space_is_that_of_the_disk_where_it_is_written(tmp_path):
    below = tmp_path / "not" / "yet" / "there"
    assert needs.lacks(root=below, cache=below, free_bytes=1, compiler=False) == []
    too_much = shutil.disk_usage(tmp_path).total + 1
    assert len(needs.lacks(root=below, cache=below, free_bytes=too_much, compiler=False)) == 1


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_python_without_virtual_environments_is_named_with_its_package(tmp_path, monkeypatch, module):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else found(name))
    lack = needs.lacks(root=tmp_path, cache=tmp_path, free_bytes=0, compiler=False)[0]
    assert "cannot make a virtual environment" in lack.problem
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if "apt-get" in lack.remedy:
        assert f"python{version}-venv" in lack.remedy


def test_set_up_needs_nothing_but_the_standard_library():
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import labsupport.machine.setup.__main__"
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, cwd="/")
