"""The soak of ten minutes, for twenty seconds: the same callers, the same faults, the same last look."""

from __future__ import annotations

from soak import soak


def test_mixed_load_with_faults_leaves_nothing_behind():
    report = soak(seconds=20, seed=3)

    assert report.violations == [], str(report)
    assert report.outcomes.get("answered", 0) > 20, str(report)
    assert len(report.faults) >= 2, str(report)
