"""The rules of the house that a tool can hold: format, lint, types, floors, and what no file may mention."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CHECKS = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["mypy"],
    "floors": ["lint-imports"],
}
# Written in pieces, because this file is read as well.
PACKAGE_HOSTS = (
    "py" + "pi.org",
    "python" + "hosted.org",
    "ana" + "conda.org",
    "npm" + "js.org",
    "crates" + ".io",
)
BUILDERS_FOLDERS = ("/wo" + "rk/", "/ro" + "ot/", "/opt/py" + "pi", "/opt/wh" + "eels", "/tmp/bu" + "ild")
VAGUE_NAMES = {"utils", "helpers", "common", "misc"}
TORCH_INDEX = "download.py" + "torch.org"


@pytest.fixture(scope="module")
def texts():
    """Every text file of the project that is, or is about to be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = {}
    for name in filter(None, listed.stdout.split("\0")):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b"\0"
        if b"\0" not in content:
            found[name] = content.decode(errors="replace")
    return found


def mentions(texts: dict[str, str], words: tuple[str, ...]) -> list[str]:
    pattern = re.compile("|".join(map(re.escape, words)))
    return [f"{name}: {hit[0]}" for name, text in texts.items() for hit in pattern.finditer(text)]


@pytest.mark.parametrize("words", CHECKS.values(), ids=CHECKS)
def test_the_code_is_clean(words):
    result = subprocess.run([BIN / words[0], *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_package_index_is_named_so_that_each_computer_uses_its_own(texts):
    assert mentions(texts, PACKAGE_HOSTS) == []


def test_pytorchs_own_index_stands_in_one_variable(texts):
    assert mentions(texts, (TORCH_INDEX,)) == [f"Makefile: {TORCH_INDEX}"]


def test_no_file_knows_the_folders_of_the_computer_it_was_written_on(texts):
    assert mentions(texts, BUILDERS_FOLDERS) == []


def test_no_module_has_a_name_that_says_nothing(texts):
    assert [
        name for name in texts if VAGUE_NAMES & {part.removesuffix(".py") for part in Path(name).parts}
    ] == []
