"""A cache that cannot be written and weights that are damaged end each command with one clear message."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import labsupport as package

SECONDS_AT_MOST = 120  # a command that waits for something instead of refusing never ends


def labsupport(*words: str, folder: Path | None = None, **environment: str) -> tuple[int, str, str]:
    """Status, output and complaints of a command, run with the package that lies in `folder`."""
    command = [sys.executable, "-m", "labsupport", *words]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        timeout=SECONDS_AT_MOST,
    )
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout, result.stderr


@pytest.fixture(params=["missing", "a file in the way"])
def unusable(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that not even an administrator can make."""
    if request.param == "missing":
        return "/proc/nowhere/x"
    (tmp_path / "file").write_text("in the way")
    return str(tmp_path / "file" / "x")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A folder with a copy of this package, one bit of whose bundled weights is wrong."""
    shutil.copytree(Path(package.__file__).parent, tmp_path / "labsupport")
    weights = tmp_path / "labsupport" / "pocket" / "weights" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 0b0100_0000
    weights.write_bytes(raw)
    return tmp_path


@pytest.mark.parametrize("words", [("models", "path", "pocket"), ("serve", "--port", "0")])
def test_a_cache_that_cannot_be_made_is_named_with_the_remedy(words: tuple[str, ...], unusable: str) -> None:
    status, output, complaint = labsupport(*words, LABSUPPORT_CACHE=unusable)

    assert (status, output) == (1, "")
    assert f"{unusable}/gguf/pocket cannot be made or written: " in complaint
    assert "What to do: Set LABSUPPORT_CACHE" in complaint


def test_the_doctor_names_a_cache_that_cannot_be_made() -> None:
    status, output, _ = labsupport("doctor", "--json", LABSUPPORT_CACHE="/proc/nowhere/x")

    findings = {one["check"]: one for one in json.loads(output)["findings"]}
    assert status == 1
    for check in ("cache", "llama.cpp"):
        assert findings[check]["state"] == "fail"
        assert "LABSUPPORT_CACHE" in findings[check]["remedy"]
    assert "the check itself broke" not in output


def test_damaged_weights_are_never_served(damaged: Path) -> None:
    status, output, complaint = labsupport("serve", "--port", "0", folder=damaged)

    weights = damaged / "labsupport" / "pocket" / "weights"
    assert (status, output) == (1, "")
    assert f"{weights / 'model.safetensors'}: its SHA-256 is " in complaint
    assert f"git checkout -- '{weights}'" in complaint
    assert "listening" not in complaint


@pytest.mark.parametrize("kept_bytes", [0, 100, -1000])
def test_a_checkpoint_that_is_cut_short_is_never_served(tmp_path: Path, kept_bytes: int) -> None:
    weights = Path(package.__file__).parent / "pocket" / "weights"
    mine = Path(shutil.copytree(weights, tmp_path / "mine"))
    short = (weights / "model.safetensors").read_bytes()[:kept_bytes]
    (mine / "model.safetensors").write_bytes(short)

    status, _, complaint = labsupport(
        "serve", "--port", "0", "--model", str(mine), LABSUPPORT_CACHE=str(tmp_path / "cache")
    )

    assert status == 1
    assert str(mine / "model.safetensors") in complaint
    assert "listening" not in complaint
