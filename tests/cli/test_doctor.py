"""The doctor's own check of the model: each file that is broken or gone gets the remedy for its kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import labsupport as package

ASKS = "import json, dataclasses; from labsupport.cli import doctor; "
ASKS += "print(json.dumps(dataclasses.asdict(doctor.model())))"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to be broken."""
    shutil.copytree(Path(package.__file__).parent, tmp_path / "labsupport")
    return tmp_path


def model_finding(copy: Path, cache: Path) -> dict[str, str]:
    surroundings = {**os.environ, "LABSUPPORT_CACHE": str(cache), "PYTHONPATH": str(copy)}
    command = [sys.executable, "-c", ASKS]
    result = subprocess.run(command, cwd=copy, env=surroundings, capture_output=True, text=True, check=True)
    finding: dict[str, str] = json.loads(result.stdout)
    return finding


def test_a_bundled_file_that_is_gone_is_brought_back_from_git(copy: Path, tmp_path: Path) -> None:
    assert model_finding(copy, tmp_path / "cache")["state"] == "ok"
    gone = copy / "labsupport" / "pocket" / "weights" / "tokenizer.json"
    gone.unlink()

    finding = model_finding(copy, tmp_path / "cache")

    assert finding["state"] == "fail"
    assert str(gone) in finding["detail"]
    assert finding["remedy"] == f"git checkout -- '{gone}'"


def test_a_made_file_that_is_broken_is_removed_and_made_again(copy: Path, tmp_path: Path) -> None:
    made = tmp_path / "cache" / "gguf" / "pocket" / "0123456789ab-q4_k_m.gguf"
    made.parent.mkdir(parents=True)
    made.write_bytes(b"GGUF\x03\0\0\0")

    finding = model_finding(copy, tmp_path / "cache")

    assert finding["state"] == "fail"
    assert str(made) in finding["detail"]
    assert finding["remedy"] == f"rm '{made}'; it is made again"
