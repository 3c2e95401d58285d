"""The measurement of steps runs as it is described, in a process of its own."""

from __future__ import annotations

from benchmarks.steps import Case, _seconds, comparisons
from labsupport import models


def test_a_case_is_measured_in_a_process_of_its_own():
    pocket = str(models.path("pocket", "q4_k_m"))
    seconds = _seconds(Case(2, kept_cells=1024, has_neighbour=True), pocket, 1)
    assert 0 < seconds < 10


def test_contenders_differ_in_one_thing():
    for name, (_, ours, other) in comparisons("m", (1, 16)).items():
        changed = [key for key in vars(ours) if getattr(ours, key) != getattr(other, key)]
        assert changed in (["environment"], ["kept_cells"]), name
