"""Troubles and crowds once, tiny: everybody is told what he must be. No speed is asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import crowd, targets, trouble
from benchmarks.options import Options
from benchmarks.results import read_all


@pytest.mark.slow
def test_a_round_of_troubles_and_a_crowd(tmp_path: Path) -> None:
    options = Options(results=tmp_path, pairs=1, slots=4, threads=1)

    assert trouble.run(options, is_quiet=False, model="pocket", rounds=1)
    assert crowd.run(options, is_quiet=False, model="pocket", seconds=1.0)

    crowded, troubled = read_all(tmp_path)
    (pair,) = troubled["pairs"]
    figures = pair["runs"]["ours"]["figures"]
    assert figures.keys() == {*trouble.LEAVING, trouble.TOLD, trouble.SERVED}
    assert 0 < figures[trouble.TOLD] < figures[trouble.SERVED]
    (pair,) = crowded["pairs"]
    assert pair["order"] == ["40 callers", "4 callers"]
    for run in pair["runs"].values():
        assert run["answered"] >= 4
        assert 0 < run["figures"]["health_p99"] <= run["figures"]["health_longest"]
    assert {row.split(" | ")[1] for row in targets.table([crowded, troubled]).splitlines()[2:-4]} == {
        "0.9 ×",
        "at most 100 ms",
        "at most 1 s",
        "at most 2 s",
    }
