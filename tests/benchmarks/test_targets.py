"""Verdicts come from the files: what is too low is missed, whatever else is said of it."""

from __future__ import annotations

from typing import Any

import pytest
from test_tables import result

from benchmarks import targets


def rows(*results: dict[str, Any]) -> list[list[str]]:
    text = targets.table(results)
    return [line.strip("| ").split(" | ") for line in text.split("\n\n")[0].splitlines()[2:]]


def beside(peer: str, **options: Any) -> dict[str, Any]:
    """A comparison with a peer of that name."""
    one = result(order=["ours", peer], **options)
    for pair in one["pairs"]:
        pair["runs"][peer] = pair["runs"].pop("peer")
    return one


def test_a_median_of_one_is_wanted_and_an_interval_that_is_hardly_below() -> None:
    ((_, wanted, reached, missed),) = rows(beside("llama-server", faster=1.2))
    assert wanted == "1 ×, interval above 0.97"
    assert (reached, missed) == (
        "output tokens/s 1.22 (from 1.20), p95 TTFT 1.22 (from 1.20), p95 ITL 1.22 (from 1.20)",
        "–",
    )

    ((_, _, reached, missed),) = rows(beside("llama-server", faster=0.97))  # the median is 0.99
    assert reached == "–"
    assert missed.startswith("output tokens/s 0.99 (from 0.97)")

    wide = beside("llama-server", faster=1.2)
    wide["pairs"][0]["runs"]["ours"]["figures"]["output_tokens_per_second"] = 95.0
    ((_, _, reached, missed),) = rows(wide)
    assert missed == "output tokens/s 1.22 (from 0.95)"
    assert "p95 TTFT" in reached


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"load": "shared", "clients": 8}, ["2.5 ×", "5 ×", "1 ×, interval above 0.97"]),
        ({"load": "shared", "clients": 4}, ["1 ×, interval above 0.97"]),
        ({"load": "mixed", "clients": 8}, ["1 ×, interval above 0.97", "1.3 ×"]),
    ],
)
def test_what_is_wanted_depends_on_the_load(settings: dict[str, Any], wanted: list[str]) -> None:
    assert [row[1] for row in rows(beside("llama-server", **settings))] == wanted


def test_of_peers_and_loads_that_no_target_is_about_nothing_is_wanted() -> None:
    assert rows(beside("ours-again"), beside("llama_cpp.server", clients=4)) == []


def test_the_largest_of_all_rounds_is_what_a_bound_is_about() -> None:
    one = result("trouble")
    one |= {"experiment": "trouble", "settings": one["settings"] | {"order": ["ours"]}, "pairs": []}
    for seconds in (0.2, 1.5, 0.3):
        figures = {"a client leaves": seconds, "a crash: the last is told": seconds}
        one["pairs"].append({"runs": {"ours": {"figures": figures}}})

    assert [row[1:] for row in rows(one)] == [
        ["at most 1 s", "–", "1.50 s"],
        ["at most 2 s", "1.50 s", "–"],
    ]


def test_comparisons_that_were_never_made_are_named() -> None:
    said = targets.table([beside("llama-server")])

    assert "Never measured beside llama-server: pocket, plain, 1, 8, 16, 32; pocket, shared, 1, 4" in said
    assert "transformers-serve" in said
    assert "transformers-serve: synthetic" not in said
