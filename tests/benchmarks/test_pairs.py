"""Pairs: who is first, what is kept, and that a killed measurement goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.pairs import Budget, measure_pairs, order_of
from benchmarks.results import Series, read
from labsupport.errors import LabsupportError

ROOT = Path(__file__).parents[2]
SETTINGS = {"threads": 2, "order": ["a", "b"]}
SLOW = """
import sys, time
from pathlib import Path
from benchmarks.pairs import Budget, measure_pairs
from benchmarks.results import Series

def measure(name, seed):
    time.sleep(0.2)
    return {"figures": {"x": seed}, "padding": "x" * 200_000}

series = Series.open(Path(sys.argv[1]), "slow", experiment="test", settings={"threads": 2}, host={})
measure_pairs(series, ("a", "b"), measure, wanted=1000, budget=Budget(None))
"""


def series(folder: Path, **settings: object) -> Series:
    return Series.open(folder, "one", experiment="test", settings=SETTINGS | settings, host={"cpu": "x"})


def test_contenders_alternate_and_the_order_is_swapped_every_pair() -> None:
    order = [name for number in range(4) for name in order_of(number, ("a", "b"))]

    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]


def test_both_of_a_pair_get_the_same_seed_and_each_pair_its_own(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def measure(name: str, seed: int) -> dict[str, object]:
        asked.append((name, seed))
        return {"figures": {"x": 1.0}}

    kept = series(tmp_path)
    assert measure_pairs(kept, ("a", "b"), measure, wanted=3, budget=Budget(None))

    assert asked == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    pairs = read(kept.path)["pairs"]
    assert [pair["order"] for pair in pairs] == [["a", "b"], ["b", "a"], ["a", "b"]]
    assert all(run["other_cpu_share"] >= 0 for pair in pairs for run in pair["runs"].values())


def test_a_failure_in_mid_pair_keeps_the_pairs_before_and_the_next_run_goes_on(tmp_path: Path) -> None:
    def fails_in_the_third(name: str, seed: int) -> dict[str, object]:
        if (name, seed) == ("b", 2):
            raise LabsupportError("the server died")
        return {"figures": {"x": seed}}

    with pytest.raises(LabsupportError, match="the server died"):
        measure_pairs(series(tmp_path), ("a", "b"), fails_in_the_third, wanted=5, budget=Budget(None))
    again = series(tmp_path)
    assert len(again.pairs) == 2

    asked = []
    measure_pairs(
        again,
        ("a", "b"),
        lambda name, seed: asked.append((name, seed)) or {"figures": {}},
        wanted=4,
        budget=Budget(None),
    )
    assert asked == [("a", 2), ("b", 2), ("b", 3), ("a", 3)]
    assert [pair["number"] for pair in read(again.path)["pairs"]] == [0, 1, 2, 3]


def test_a_kill_at_any_moment_leaves_whole_pairs(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)], env=environment)
    file = tmp_path / "slow.json"
    deadline = time.monotonic() + 240
    while not (file.exists() and len(read(file)["pairs"]) >= 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)

    process.send_signal(signal.SIGKILL)
    process.wait()

    kept = Series.open(tmp_path, "slow", experiment="test", settings={"threads": 2}, host={})
    assert len(kept.pairs) >= 3
    assert all(set(pair["runs"]) == {"a", "b"} for pair in kept.pairs)
    assert [pair["number"] for pair in kept.pairs] == list(range(len(kept.pairs)))


def test_pairs_of_other_settings_are_put_aside_and_never_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series(tmp_path).add({"number": 0})

    changed = series(tmp_path, threads=1)

    assert changed.pairs == []
    assert "threads" in capsys.readouterr().out
    (aside,) = (tmp_path / "superseded").iterdir()
    assert json.loads(aside.read_text())["pairs"] == [{"number": 0}]


def test_no_pair_begins_after_the_budget_is_spent(tmp_path: Path) -> None:
    asked = []

    complete = measure_pairs(
        series(tmp_path),
        ("a", "b"),
        lambda *_: asked.append(1) or {"figures": {}},
        wanted=5,
        budget=Budget(0),
    )

    assert not complete
    assert asked == []


def test_a_file_that_is_no_results_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"format": 99}')

    with pytest.raises(LabsupportError, match=r"one\.json is no results file"):
        series(tmp_path)
