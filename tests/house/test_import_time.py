"""`import labsupport` and `labsupport --help` cost under 0.3 s: no heavy library comes along."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "transformers",
    "llama_cpp",
    "matplotlib",
    "ipywidgets",
    "fastapi",
    "numpy",
    "openai",
    "zmq",
}
SECONDS_AT_MOST = 0.3
COMMANDS = {
    "import labsupport": ["-c", "import labsupport"],
    "labsupport --help": ["-m", "labsupport", "--help"],
}


def seconds_of_processor(words: list[str]) -> float:
    """User and system time of one run: what it costs, whatever else this computer does meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_starting_is_quick(words):
    assert min(seconds_of_processor(words) for _ in range(5)) < SECONDS_AT_MOST


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_no_heavy_library_comes_along(words):
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *words], check=True, capture_output=True, text=True
    )
    imported = {line.split("|")[-1].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert imported & HEAVY == set()
    assert "labsupport" in imported
