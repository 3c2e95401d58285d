"""The tables of a GPU's results are computed from the files, and leave empty what is not there."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import tables
from benchmarks.cuda.limit import limit_tokens_per_second
from benchmarks.cuda.tables import cells, section
from labsupport.anatomy import model_sheet

SHEET = model_sheet("llama-3.1-8b")
GPU = {"name": "a GPU", "memory_bytes": 141e9, "driver": "1", "compute_capability": "9.0"}
SETTINGS = {
    "gpu": GPU,
    "cpu": "a processor",
    "usable_cores": 16,
    "python": "3.12",
    "packages": {"torch": "2"},
}
BANDWIDTH = 4e12


def result(experiment: str, *pairs: dict[str, Any], **settings: Any) -> dict[str, Any]:
    named = {"name": experiment, "experiment": experiment, "host": {}, "pairs": list(pairs)}
    return named | {"settings": SETTINGS | {"shape": "llama-3.1-8b"} | settings}


def decode(contender: str, quantization: str = "bf16", **rates: float) -> dict[str, Any]:
    """Whole-run rates by number of sequences (`at_1=…`); decoding alone is twice as fast."""
    pairs = [
        {
            "sequences": int(name.removeprefix("at_")),
            "figures": {"whole_run_tokens_per_second": rate, "decode_tokens_per_second": 2 * rate},
        }
        for name, rate in rates.items()
    ]
    load = {"prompt_tokens": 128, "new_tokens": 128, "config": SHEET.config}
    return result("gpu-decode", *pairs, contender=contender, quantization=quantization, **load)


def bandwidth() -> dict[str, Any]:
    figures = {f"{name}_bytes_per_second": BANDWIDTH for name in ("bandwidth", "read", "copy")}
    return result("gpu-bandwidth", {"figures": figures})


def limit(sequences: int) -> float:
    return limit_tokens_per_second(
        SHEET.shape,
        "bf16",
        sequences=sequences,
        context_tokens=192,
        bandwidth_bytes_per_second=BANDWIDTH,
    )


def test_ours_stands_beside_the_limit_and_each_peer() -> None:
    results = [bandwidth(), decode("ours", at_32=3000, at_1=80), decode("generate", at_1=40, at_32=1200)]

    one, many = cells(results)

    assert (one["sequences"], many["sequences"]) == (1, 32)
    assert one["share"] == pytest.approx(160 / limit(1))
    assert many["limit"] == pytest.approx(limit(32))
    assert many["times_generate"] == pytest.approx(2.5), "of the whole run, prompts included"
    row = section("gpu-decode", results).splitlines()[-1]
    assert row.startswith(f"| llama-3.1-8b, bf16, 32 | {limit(32):,.0f} | 6,000 |")
    assert row.endswith("| 2,400 | **2.50** | – | – |"), "a peer that was not measured is a dash"


@pytest.mark.parametrize(("factor", "verdict"), [(0.59, "missed"), (0.61, "reached")])
def test_whether_the_share_of_the_limit_is_reached_is_computed(factor: float, verdict: str) -> None:
    results = [bandwidth(), decode("ours", at_1=factor * limit(1) / 2)]

    assert section("gpu-targets", results).endswith(f"of the bandwidth limit; wanted 60%: {verdict}.")


@pytest.mark.parametrize(("rate", "verdict"), [(199, "missed"), (201, "reached")])
def test_whether_generate_is_beaten_twice_over_is_computed(rate: float, verdict: str) -> None:
    results = [decode("ours", at_32=rate), decode("generate", at_32=100)]

    assert section("gpu-targets", results).endswith(f"wanted 2 ×: {verdict}.")


def test_without_a_bandwidth_there_is_no_limit() -> None:
    assert "share" not in cells([decode("ours", at_1=80)])[0]
    assert section("gpu-targets", [decode("ours", at_1=80)]) == tables.NOTHING


def test_memory_stands_beside_the_anatomy() -> None:
    figures = {"weights_allocated_bytes": 16.16e9, "weights_expected_bytes": 16e9}
    figures |= {"kv_allocated_bytes": 4.3e9, "kv_expected_bytes": 4.3e9}

    text = section("gpu-memory", [result("gpu-memory", {"figures": figures}, quantization="bf16")])

    assert text.splitlines()[-1] == (
        "| llama-3.1-8b, bf16 | 16.160 | 16.000 | +1.0% | 4.300 | 4.300 | +0.0% |"
    )


def test_tests_that_failed_are_named() -> None:
    entry = {"tests": 5, "failed": ["a"], "broken": ["b"], "skipped": ["c"], "seconds": 1}

    text = section("gpu-tests", [result("gpu-tests", entry, tests="tests/gpu/x.py")])

    assert text.splitlines()[-1] == "| tests/gpu/x.py | 2 | 1 | a, b |"


def test_results_of_gpus_and_of_cpus_keep_to_their_own_tables() -> None:
    results = [bandwidth(), decode("ours", at_1=80)]

    assert tables.section("machines", results) == tables.NOTHING
    assert tables.section("serving", results) == tables.NOTHING
    assert "a GPU, 141 GB" in tables.section("gpu-machines", results)
    assert "4,000 GB/s reading" in tables.section("gpu-machines", results)
