"""Load on a real server with the pocket model: what is reported is what the server itself counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import labsupport
from labsupport import loadtest
from labsupport.loadtest import SLO, Closed, Poisson
from labsupport.server.launch import Server

EXACT = {"temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with labsupport.serve("pocket", "q4_k_m", slots=4, context=512) as running:
        yield running


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "labsupport", "loadtest", *words],
        capture_output=True,
        text=True,
        timeout=300,
        env=dict(os.environ),
    )


def test_tokens_are_those_that_the_server_counted_itself(server: Server) -> None:
    before = server.metrics()

    report = loadtest.run(
        server.url,
        loadtest.random_words(9, words=10, seed=1),
        Closed(3),
        max_tokens=8,
        extra=EXACT,
        slo=SLO(e2e=300),
    )

    after = server.metrics()
    counted = {
        name: after[f"labsupport:{name}_total"] - before[f"labsupport:{name}_total"]
        for name in ("prompt_tokens", "generation_tokens")
    }
    assert report.errors == {}
    assert counted["generation_tokens"] == sum(one.output_tokens for one in report.records) == 9 * 8
    assert counted["prompt_tokens"] == sum(one.prompt_tokens for one in report.records)
    assert {one.counted_by for one in report.records} == {"usage"}
    assert {one.finish_reason for one in report.records} == {"length"}
    for one in report.records:
        assert 0 < one.ttft_seconds <= one.e2e_seconds <= one.ended - one.arrived
        assert one.sent >= one.arrived
    assert report.output_tokens_per_second > 0
    assert report.goodput(SLO(e2e=300)) > 0


def test_a_shared_beginning_is_found_in_the_cache(server: Server) -> None:
    prompts = loadtest.random_words(4, words=2, shared_words=20, seed=2)

    report = loadtest.run(server.url, prompts, Closed(1), max_tokens=2, extra=EXACT)

    first, *others = report.records
    assert first.cached_tokens < 20
    assert all(one.cached_tokens >= 40 for one in others)


def test_chat_is_measured_too_in_an_open_loop(server: Server) -> None:
    asked = [[{"role": "user", "content": f"What is a KV cache? {number}"}] for number in range(4)]

    report = loadtest.run(server.url, asked, Poisson(50), max_tokens=4, extra=EXACT)

    assert report.errors == {}
    assert [one.output_tokens for one in report.records] == [4] * 4


def test_the_command_prints_a_table_or_json(server: Server, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts"
    prompts.write_text('"a text"\n\n{"prompt": [261, 78], "max_tokens": 3}\n')
    options = ["--clients", "2", "--max-tokens", "5", "--extra", json.dumps(EXACT), "--slo", "ttft=200"]

    table = command(server.url, "--requests", "4", "--words", "5", *options)
    found = json.loads(command(server.url, "--prompts", str(prompts), *options, "--json", "--records").stdout)

    assert table.returncode == 0, table.stderr
    assert "closed loop, 2 clients: 4 requests, 4 answered" in table.stdout
    assert "goodput" in table.stdout
    assert [one["output_tokens"] for one in found["records"]] == [5, 3]
    assert found["output_tokens"] == 8


def test_a_request_that_the_server_refuses_is_told_in_the_servers_words(server: Server) -> None:
    result = command(server.url, "--requests", "2", "--words", "600")

    assert result.returncode == 1
    assert "none of 2 requests was answered" in result.stderr
    assert "HTTP 400: This server's context length is 512" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["http://127.0.0.1:9"], "nothing answers at http://127.0.0.1:9"),
        (["--clients", "1", "--rate", "2"], "two kinds of load"),
        (["--extra", "[1]"], "a JSON object"),
        (["--prompts", "no/such/file"], "cannot be read"),
        (["--clients", "0"], "1 or more"),
    ],
)
def test_the_command_refuses_in_words(words: list[str], said: str) -> None:
    result = command(*words)

    assert result.returncode == 1
    assert said in result.stderr
    assert "Traceback" not in result.stderr
