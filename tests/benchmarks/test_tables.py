"""The tables are made of the results files, and the README says nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.results import RESULTS, read_all


def result(name: str = "one", *, faster: float = 2.0, pairs: int = 5, **settings: Any) -> dict[str, Any]:
    """Ours makes `faster` times the tokens, at a latency that is as many times shorter."""

    def run(speed: float) -> dict[str, Any]:
        figures = {"output_tokens_per_second": 100 * speed, "ttft_p95": 1 / speed}
        figures |= {"itl_p95": 0.01 / speed, "e2e_p95": float("nan")}
        summary = {"requests": 10, "answered": 10, "prompt_tokens": 1280, "window": {"is_steady": True}}
        return {"figures": figures, "summary": summary, "other_cpu_share": 0.0}

    common = {"cpu": "a processor", "usable_cores": 2, "python": "3.11", "threads": 2, "seconds": 10}
    chosen = {"order": ["ours", "peer"], "model": "pocket", "load": "plain", "clients": 4, "code": "new"}
    return {
        "name": name,
        "experiment": "serving",
        "settings": common | {"packages": {"llama-cpp-python": "0"}} | chosen | settings,
        "host": {"memory_bytes": 16e9, "system": "Linux"},
        "pairs": [
            {"number": number, "quiet": True, "runs": {"ours": run(faster + 0.01 * number), "peer": run(1.0)}}
            for number in range(pairs)
        ],
    }


def test_the_readme_agrees_with_the_results_files() -> None:
    text = tables.README.read_text(encoding="utf-8")

    assert text == tables.readme_with_tables(text, read_all(RESULTS)), "run python -m benchmarks.tables"
    assert {
        "serving",
        "prefix",
        "http-overhead",
        "batched-bench",
        "memory",
        "memory-growth",
        "ledger",
        "steps",
        "trouble",
        "crowd",
        "targets",
        "machines",
        "gpu-machines",
        "gpu-tests",
        "gpu-memory",
        "gpu-decode",
        "gpu-targets",
    } == {match[1] for match in tables._MARKED.finditer(text)}


def test_more_is_better_for_us_in_every_ratio() -> None:
    tokens, ttft, *_ = tables.METRICS["serving"]

    assert tables.ratios(result(), tokens) == pytest.approx([2.0, 2.01, 2.02, 2.03, 2.04])
    assert tables.ratios(result(), ttft) == pytest.approx([2.0, 2.01, 2.02, 2.03, 2.04])
    assert tables.ratios(result(faster=0.5), ttft)[0] == pytest.approx(0.5)


def test_a_row_has_medians_ratio_interval_and_spread() -> None:
    text = tables.table("serving", [result()])
    head, _, row = text.splitlines()

    assert "output tokens/s: ours, theirs" in head
    assert row.startswith(
        "| ours / peer: pocket, plain, 4 at once | 5 | 202.0, 100.0 | **2.02** (2.00 to 2.04; "
    )
    assert row.endswith("| –, – | – |"), "a figure that was not measured is a dash, not a number"


def test_rows_are_in_order_of_their_load_and_not_of_their_file_names() -> None:
    rows = tables.table("serving", [result("c16", clients=16), result("c4")]).splitlines()[2:]

    assert ["4 at once" in rows[0], "16 at once" in rows[1]] == [True, True]


def test_whatever_makes_a_result_mean_less_is_said_under_it() -> None:
    one = result()
    one["pairs"][0]["quiet"] = False
    one["pairs"][1]["runs"]["ours"]["other_cpu_share"] = 0.5
    one["pairs"][2]["runs"]["peer"]["summary"]["answered"] = 7
    one["pairs"][3]["runs"]["peer"]["summary"]["window"] = {"is_steady": False}
    for pair in one["pairs"]:
        pair["runs"]["peer"]["summary"]["prompt_tokens"] = 129 * pair["runs"]["peer"]["summary"]["answered"]

    said = " ".join(tables.caveats(one))

    assert "1 of 5 pairs were measured on a busy machine" in said
    assert "in 1 of 10 runs others used over 10% of a core" in said
    assert "3 requests to peer failed" in said
    assert "1 runs of peer were too short" in said
    assert "ours 128, peer 129" in said
    assert all(caveat in tables.table("serving", [one]) for caveat in tables.caveats(one))
    assert tables.caveats(result()) == []


def test_prompts_may_differ_from_pair_to_pair_but_not_within_one() -> None:
    one = result()
    for number, pair in enumerate(one["pairs"]):
        for run in pair["runs"].values():
            run["summary"]["prompt_tokens"] += 100 * number
    assert tables.caveats(one) == []
    one["pairs"][2]["runs"]["peer"]["summary"]["prompt_tokens"] = 1300
    assert tables.caveats(one) == ["they do not count the same prompt tokens: ours 148, peer 130"]


def test_without_results_that_is_what_is_said() -> None:
    for name in (*tables.METRICS, *tables.OTHERS, "machines", "gpu-machines", "gpu-decode"):
        assert tables.section(name, []) == tables.NOTHING


def test_memory_is_told_in_its_parts() -> None:
    figures = {
        "resident_bytes": 500e6,
        "weights_bytes": 200e6,
        "kv_bytes": 100e6,
        "compute_bytes": 90e6,
        "over_bytes": 110e6,
    }
    one = result() | {
        "experiment": "memory",
        "pairs": [{"number": 0, "runs": {"ours": {"figures": figures}}}],
    }

    assert tables.table("memory", [one]).splitlines()[2] == "| pocket | 500 | 200 | 100 | 90 | 110 |"


def test_new_tables_replace_the_old_ones_and_leave_the_prose_alone(tmp_path: Path) -> None:
    text = "Before.\n<!-- results: serving -->\nold\n<!-- end -->\nAfter.\n"

    fresh = tables.readme_with_tables(text, [result()])

    assert fresh.startswith("Before.\n<!-- results: serving -->\n| comparison |")
    assert fresh.endswith("<!-- end -->\nAfter.\n")
    assert "old" not in fresh
    assert tables.readme_with_tables(fresh, [result()]) == fresh


def test_what_was_measured_with_earlier_code_is_named() -> None:
    old, new = result("old", code="old"), result("new")
    for one, day in ((old, "2026-01-01"), (new, "2026-01-02")):
        for pair in one["pairs"]:
            pair["began"] = day

    assert tables.section("machines", [old, new]).endswith("than the newest file: old")
    assert "earlier" not in tables.section("machines", [new])
