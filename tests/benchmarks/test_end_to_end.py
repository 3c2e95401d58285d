"""The whole of it, tiny: two of our own servers side by side. No speed is asserted, only what is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.results import read

ROOT = Path(__file__).parents[2]
TINY = ["--anyway", "--peer", "ours-again", "--model", "pocket", "--load", "plain", "--clients", "2"]
TINY += [
    "--pairs",
    "2",
    "--seconds",
    "0.2",
    "--rounds",
    "2",
    "--requests",
    "6",
    "--slots",
    "2",
    "--threads",
    "1",
]


def measure(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.serving", *TINY, "--results", str(folder), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=580,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.slow
def test_two_of_our_own_servers_side_by_side(tmp_path: Path) -> None:
    first = measure(tmp_path)
    assert first.returncode == 0, first.stderr
    file = tmp_path / "serving-ours-again-pocket-plain-c2.json"
    found = read(file)

    assert [pair["order"] for pair in found["pairs"]] == [["ours", "ours-again"], ["ours-again", "ours"]]
    settings = found["settings"]
    assert {"cpu", "packages", "code", "gguf_sha256", "threads", "slots", "contenders"} <= settings.keys()
    assert "--threads" in settings["contenders"]["ours-again"]["command"]
    assert not [word for word in json.dumps(settings).split('"') if word.startswith("/")]
    for pair in found["pairs"]:
        counts = set()
        for run in pair["runs"].values():
            rows = [dict(zip(run["columns"], row, strict=True)) for row in run["requests"]]
            assert [row["error"] for row in rows] == [""] * len(rows)
            assert {row["prompt_tokens"] for row in rows} == {128}
            assert {row["output_tokens"] for row in rows} == {64}
            assert all(row["cached_tokens"] < 16 for row in rows), "prompts are new in every run"
            assert run["figures"]["output_tokens_per_second"] > 0
            assert len(run["itl_percentiles"]) == 101
            assert run["resident_bytes"] > 10e6
            assert run["load_cpu_share"] > 0
            counts.add(len(rows))
        assert max(counts) <= 6
    assert "| ours / ours-again: pocket, plain, 2 at once | 2 |" in first.stdout
    assert "busy" in first.stdout or "others used" not in first.stdout

    before = file.read_bytes()
    again = measure(tmp_path)  # all is there: nothing is started, nothing changes
    assert again.returncode == 0, again.stderr
    assert "pair" not in again.stdout.split("serving\n")[0]
    assert file.read_bytes() == before
    mine = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert mine == []


def test_a_wrong_name_is_refused_without_a_traceback(tmp_path: Path) -> None:
    result = measure(tmp_path, "--load", "heavy")

    assert result.returncode == 1
    assert "Allowed: plain, shared, mixed" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_that_is_missing_is_refused_without_a_traceback(tmp_path: Path) -> None:
    result = measure(tmp_path, "--model", "no-such-model")

    assert result.returncode == 1
    assert "no-such-model" in result.stderr
    assert "Traceback" not in result.stderr
