"""`labsupport usage`: the bill of a ledger whose sums are known, to the last digit."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from labsupport.server.ledger_file import Row, open_for_writing, write

LACKS_ONE = "The bill lacks 1 request whose use the upstream never told.\n"
FREE = "Failed requests used 110 tokens, charged to nobody.\n"
NOON = 1_793_016_000.0
"""2026-10-26T12:00:00Z"""


def row(number: int, key: str, tokens: tuple[int | None, int | None, int | None], **others: object) -> Row:
    prompt, cached, completion = tokens
    usual = {
        "route": "/v1/completions",
        "model": "pocket",
        "arrived_at": NOON + number,
        "finish_reason": "stop",
    }
    return Row(
        id=f"cmpl-{number}",
        key=key,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        **(usual | others),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    connection = open_for_writing(tmp_path / "ledger")
    write(
        connection,
        [
            row(1, "bob", (1_000_000, 400_000, 7)),
            row(2, "bob", (3, 0, 1_000_000), finish_reason="abort"),
            row(3, "alice", (10, 0, 20), finish_reason="length,stop"),
            row(4, "alice", (50, 0, 60), finish_reason="error", error="engine_died"),
            row(5, "alice", (None, None, None), finish_reason=None),
            row(6, "alice", (None, None, None), finish_reason="abort"),
            row(8, "alice", (None, None, None), finish_reason="error", error="upstream_timeout"),
            row(3600, "alice", (1, 0, 1)),
            row(7200, "", (5, 5, 5), model="other"),
        ],
    )
    connection.close()
    return tmp_path / "ledger"


def usage(*words: object) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "labsupport", "usage", *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout, result.stderr


def test_the_bill_has_a_line_for_each_key_and_their_sum(ledger: Path) -> None:
    status, output, complaint = usage(
        ledger, "--price-in", "0.15", "--price-out", "0.60", "--price-cached", "0.01"
    )

    assert status == 0
    assert [line.split() for line in output.splitlines()[1:]] == [
        ["(no", "key)", "1", "5", "5", "5", "0", "0", "0", "0.000003"],
        ["alice", "3", "11", "0", "21", "2", "1", "1", "0.000014"],
        ["bob", "2", "1,000,003", "400,000", "1,000,007", "0", "0", "0", "0.694005"],
        ["all", "6", "1,000,019", "400,005", "1,000,033", "2", "1", "1", "0.694022"],
    ]
    assert "lacks 1 request" in complaint
    assert "used for 2 models: other, pocket" in complaint


def test_costs_as_json_are_exact(ledger: Path) -> None:
    status, output, complaint = usage(
        ledger, "--json", "--price-in", "0.1", "--price-out", "0.3", "--model", "pocket"
    )

    bill = json.loads(output)
    assert (status, complaint, bill["models"]) == (0, LACKS_ONE + FREE, ["pocket"])
    costs = {line["key"]: Decimal(line["cost"]) for line in bill["keys"]}
    assert costs == {
        # without a price of their own, cached tokens cost what the others do
        "bob": Decimal("1000003") * Decimal("0.0000001") + Decimal("1000007") * Decimal("0.0000003"),
        "alice": Decimal("0.0000074"),
    }
    assert Decimal(bill["total"]["cost"]) == sum(costs.values())
    assert bill["keys"][0] == {
        "key": "alice",
        "requests": 3,
        "failed": 2,
        "failed_tokens": 110,
        "unfinished": 1,
        "without_usage": 1,
        "prompt_tokens": 11,
        "completion_tokens": 21,
        "total_tokens": 32,
        "prompt_tokens_details": {"cached_tokens": 0},
        "cost": "0.0000074",
    }


def test_without_prices_it_is_the_use_alone(ledger: Path) -> None:
    status, output, complaint = usage(ledger, "--model", "other")

    assert (status, complaint) == (0, "")
    assert "cost" not in output
    assert output.splitlines()[-1].split() == ["all", "1", "5", "5", "5", "0", "0", "0"]
    assert "cost" not in json.loads(usage(ledger, "--json")[1])["total"]


@pytest.mark.parametrize(
    ("period", "requests"),
    [
        (["--since", "2026-10-26T13:00:00Z"], 2),
        (["--since", "2026-10-26T13:00:00"], 2),
        (["--since", "2026-10-26T15:00:01+02:00"], 1),
        (["--until", "2026-10-26T13:00:00Z"], 4),
        (["--since", "2026-10-26T13:00:00Z", "--until", "2026-10-26T13:00:01Z"], 1),
        (["--since", "2026-10-27"], 0),
        (["--since", "2026-10-26", "--until", "2026-10-27"], 6),
    ],
)
def test_a_period_takes_its_beginning_in_and_leaves_its_end_out(
    ledger: Path, period: list[str], requests: int
) -> None:
    assert json.loads(usage(ledger, "--json", *period)[1])["total"]["requests"] == requests


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--price-in", "1"], "a price is missing"),
        (["--price-cached", "1"], "a price is missing"),
        (["--price-in", "cheap", "--price-out", "1"], "'cheap' is no price"),
        (["--price-in", "-1", "--price-out", "1"], "'-1' is no price"),
        (["--price-in", "1", "--price-out", "nan"], "'nan' is no price"),
        (["--since", "last week"], "'last week' is no date or time"),
    ],
)
def test_what_cannot_be_billed_is_named(ledger: Path, words: list[str], complaint: str) -> None:
    status, output, message = usage(ledger, *words)

    assert (status, output) == (1, "")
    assert complaint in message
    assert "Allowed: " in message


def test_a_missing_ledger_is_named_with_the_remedy_and_not_made(tmp_path: Path) -> None:
    status, output, complaint = usage(tmp_path / "none")

    assert (status, output) == (1, "")
    assert f"there is no ledger {tmp_path / 'none'}" in complaint
    assert "--ledger FILE" in complaint
    assert list(tmp_path.iterdir()) == []
