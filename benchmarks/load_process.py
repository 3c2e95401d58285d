"""A load in a process of its own, so that making it takes no time of whoever measures.

It runs `labsupport loadtest`, and keeps of its answer what fits a results file: the summary, a row for each
request and the quantiles of all gaps between tokens.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from labsupport.errors import LabsupportError
from labsupport.loadtest import Prompt, Record
from labsupport.loadtest.statistics import percentile

LONGEST_RUN_SECONDS = 1800


def run_load(
    url: str,
    prompts: list[Prompt],
    *,
    clients: int,
    seconds: float | None,
    least_requests: int = 0,
    model: str | None,
    extra: dict[str, Any],
    timeout_seconds: float,
) -> dict[str, Any]:
    """A closed loop on a server; its figures. Raises LabsupportError if no request was answered."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.jsonl"
        file.write_bytes(b"\n".join(map(msgspec.json.encode, prompts)))
        words = ["loadtest", url, "--prompts", str(file), "--requests", str(len(prompts))]
        words += ["--clients", str(clients), "--least-requests", str(least_requests)]
        words += ["--extra", json.dumps(extra), "--timeout", str(timeout_seconds), "--json", "--records"]
        words += [] if seconds is None else ["--seconds", str(seconds)]
        words += ["--model", model, "--unlisted"] if model else []
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        finished = subprocess.run(
            [sys.executable, "-m", "labsupport", *words],
            capture_output=True,
            text=True,
            timeout=LONGEST_RUN_SECONDS,
            env=os.environ | {"PYTHONPATH": _path()},
        )
        elapsed, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if finished.returncode:
        raise LabsupportError(f"the load on {url} failed: {finished.stderr.strip()}")
    answer = json.loads(finished.stdout)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return condensed(answer) | {"load_cpu_share": round(used / elapsed, 4)}


def condensed(answer: dict[str, Any]) -> dict[str, Any]:
    """What is kept of the JSON of `labsupport loadtest --json --records`."""
    records = msgspec.convert(answer.pop("records"), list[Record])
    gaps = sorted(gap for record in records if record.is_ok for gap in record.itl_seconds)
    latency = answer["latency_seconds"]
    return {
        "figures": {
            "output_tokens_per_second": answer["output_tokens_per_second"],
            "whole_run_tokens_per_second": answer["whole_run_tokens_per_second"],
            "ttft_median": latency["ttft"]["median"],
            "ttft_p95": latency["ttft"]["p95"],
            "itl_p95": latency["itl"]["p95"],
            "e2e_p95": latency["e2e"]["p95"],
        },
        "summary": answer,
        "columns": ["arrived", "ttft", "e2e", "prompt_tokens", "cached_tokens", "output_tokens", "error"],
        "requests": [
            [
                _rounded(record.arrived),
                _rounded(record.ttft_seconds),
                _rounded(record.e2e_seconds),
                record.prompt_tokens,
                record.cached_tokens,
                record.output_tokens,
                record.error,
            ]
            for record in records
        ],
        "itl_percentiles": [_rounded(percentile(gaps, percent)) for percent in range(101)] if gaps else [],
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 5)


def _path() -> str:
    root = str(Path(__file__).parents[1])
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
