"""The ledger has one row for each request that ran, and it says what the answer said."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import openai
import pytest
from asking import ALICE, ASK, BOB, DAVE, is_idle, wait_until
from ledger_rows import rows, said, used

from labsupport.server.accounts import Accounts, Request
from labsupport.server.key_limits import KeyLimits
from labsupport.server.keys import Key, Limits, digest
from labsupport.server.limits import Admission
from labsupport.server.meter import EngineMeter
from labsupport.server.metrics import Metrics

LONG = {"model": "pocket", "messages": ASK, "max_tokens": 400, "extra_body": {"ignore_eos": True}}
CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def alice(accounted) -> openai.OpenAI:
    return accounted.openai()


@pytest.fixture(scope="module")
def bob(accounted) -> openai.OpenAI:
    return accounted.openai(api_key=BOB)


def the_new_row(ledger, before) -> dict:
    """The only row that came since; fails the test if it has not ended within a while."""

    def ended():
        new = [row for id, row in rows(ledger).items() if id not in before]
        return len(new) == 1 and new[0]["finish_reason"] is not None

    wait_until(ended, what="the end of the only new row")
    return next(row for id, row in rows(ledger).items() if id not in before)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_tokens": 7}, "length"),
        ({"max_tokens": 7, "n": 3, "seed": 1}, "length"),
        ({"max_tokens": 60, "temperature": 0}, "stop"),
        ({"max_tokens": 60, "temperature": 0, "stop": ["cache", "memory", "."]}, "stop"),
    ],
    ids=["length", "n", "end", "stop-string"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_row_says_what_the_answers_usage_said(alice, ledger, options, reason, stream):
    begin = time.time()
    if stream:
        chunks = list(
            alice.chat.completions.create(
                model="pocket", messages=ASK, stream=True, stream_options={"include_usage": True}, **options
            )
        )
        id, usage = chunks[-1].id, chunks[-1].usage
    else:
        answer = alice.chat.completions.create(model="pocket", messages=ASK, **options)
        id, usage = answer.id, answer.usage

    row = rows(ledger)[id]  # at once: it was durable before the answer's last byte came

    assert used(row) == said(usage)
    assert row["finish_reason"] == reason
    assert row["error"] is None
    assert (row["key"], row["route"], row["model"]) == ("alice", CHAT, "pocket")
    assert begin - 1 <= row["arrived_at"] <= row["first_token_at"] <= row["finished_at"] <= time.time() + 1


def test_prompts_count_once_and_choices_each_and_shared_prefixes_as_cached(alice, ledger):
    def ask():
        return alice.completions.create(
            model="pocket",
            prompt=["a b c d e f g " * 9, "x"],
            n=2,
            max_tokens=4,
            extra_body={"ignore_eos": True},
        )

    first, again = ask(), ask()

    assert used(rows(ledger)[first.id]) == said(first.usage)
    assert used(rows(ledger)[again.id]) == said(again.usage)
    row = rows(ledger)[again.id]
    assert row["route"] == COMPLETE
    assert row["completion_tokens"] == 16
    assert 0 < row["cached_tokens"] < row["prompt_tokens"]


def test_a_stream_that_does_not_tell_its_usage_is_counted_all_the_same(alice, ledger):
    chunks = list(
        alice.chat.completions.create(
            model="pocket",
            messages=ASK,
            max_tokens=23,
            stream=True,
            logprobs=True,
            n=2,
            extra_body={"ignore_eos": True},
        )
    )

    generated = sum(len(chunk.choices[0].logprobs.content) for chunk in chunks if chunk.choices[0].logprobs)
    assert rows(ledger)[chunks[0].id]["completion_tokens"] == generated == 46


def test_choices_that_end_differently_give_both_reasons(alice, ledger):
    answers = [
        alice.chat.completions.create(
            model="pocket", messages=ASK, max_tokens=24, n=8, seed=seed, temperature=2
        )
        for seed in range(3)
    ]

    for answer in answers:
        reasons = [choice.finish_reason for choice in answer.choices]
        assert rows(ledger)[answer.id]["finish_reason"].split(",") == list(dict.fromkeys(reasons))


@pytest.mark.parametrize("n", [1, 3])
def test_a_stream_that_is_left_is_charged_with_what_it_got(accounted, alice, ledger, n):
    before = rows(ledger)
    stream = alice.chat.completions.create(**LONG, stream=True, logprobs=True, n=n)
    received, id = 0, ""
    for chunk in stream:
        id = chunk.id
        received += len(chunk.choices[0].logprobs.content) if chunk.choices[0].logprobs else 0
        if received >= 20:
            break
    stream.close()

    row = the_new_row(ledger, before)

    assert row["id"] == id
    assert (row["finish_reason"], row["error"]) == ("abort", None)
    assert received <= row["completion_tokens"] < 400 * n
    assert row["prompt_tokens"] > 0
    wait_until(lambda: is_idle(accounted), what="an idle engine")


def test_who_leaves_before_a_first_token_pays_the_prompt_of_his_limit_all_the_same():
    key = Key(name="kim", digest=digest("k"), limits=Limits(tokens_per_minute=100))
    accounts = Accounts(Admission(1), None, KeyLimits([key]))
    engine = SimpleNamespace(ready=False, restarts=0, last_report=None)
    request = Request(
        id="one", key="kim", route="r", model="m", arrived=0.0, sequences=1, most_tokens=90, prompt_tokens=30
    )

    async def leave() -> None:
        meter = EngineMeter(Metrics("m", engine), [30], choices_per_prompt=1, arrived=0.0)
        async with accounts.open(request, meter):
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(leave())

    assert accounts.headers("kim")["x-ratelimit-remaining-tokens"] == "70"


def test_an_answer_that_nobody_waits_for_is_an_abort(accounted, ledger):
    before = rows(ledger)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{accounted.url}{CHAT}",
            json={"model": "pocket", "messages": ASK, "max_tokens": 450, "ignore_eos": True, "n": 8},
            headers={"Authorization": f"Bearer {ALICE}"},
            timeout=0.5,
        )

    row = the_new_row(ledger, before)

    assert row["finish_reason"] == "abort"
    assert row["completion_tokens"] < 8 * 450


def test_a_refused_request_leaves_no_row(accounted, ledger):
    before = rows(ledger)

    def status(key=ALICE, route=CHAT, **wrong):
        body = {"model": "pocket", "max_tokens": 4} | ({"messages": ASK} if route == CHAT else {}) | wrong
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(accounted.url + route, json=body, headers=headers, timeout=60).status_code

    assert status(model="other") == 404
    assert status(temperature=9) == 400
    assert status(max_tokens=10_000) == 400
    assert status(route=COMPLETE, prompt=["x"] * 9, n=16) == 400  # more than the queue could ever hold
    assert status(key="wrong") == 401
    assert status(key=DAVE, max_tokens=400) == 400  # more than the key has in a minute
    assert rows(ledger) == before


def test_many_at_once_are_each_written_once(accounted, alice, bob, ledger):
    before = rows(ledger)

    def ask(number):
        client = (alice, bob)[number % 2]
        answer = client.chat.completions.create(
            model="pocket", messages=ASK, max_tokens=1 + number % 5, extra_body={"ignore_eos": True}
        )
        return ("alice", "bob")[number % 2], answer

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(60)))

    new = {id: row for id, row in rows(ledger).items() if id not in before}
    assert new.keys() == {answer.id for _, answer in answers}
    for name, answer in answers:
        assert (new[answer.id]["key"], used(new[answer.id])) == (name, said(answer.usage))


def test_no_file_of_the_ledger_holds_a_key_or_is_open_to_others(accounted, alice, ledger):
    alice.completions.create(model="pocket", prompt="x", max_tokens=1)

    files = list(ledger.parent.glob("ledger*"))
    assert ledger in files
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert ALICE.encode() not in file.read_bytes()


def usage(server, key, **period) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{server.url}/v1/usage", params=period, headers=headers, timeout=60)


def test_v1_usage_tells_each_caller_its_own_totals(accounted, alice, bob):
    before = {key: usage(accounted, key).json() for key in (ALICE, BOB)}

    answer = alice.completions.create(model="pocket", prompt="x " * 9, n=2, max_tokens=3)

    after = usage(accounted, ALICE).json()
    assert (after["object"], after["key"]) == ("usage", "alice")
    assert after["requests"] == before[ALICE]["requests"] + 1
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert after[name] == before[ALICE][name] + getattr(answer.usage, name)
    assert (
        after["prompt_tokens_details"]["cached_tokens"]
        == before[ALICE]["prompt_tokens_details"]["cached_tokens"] + said(answer.usage)[1]
    )
    assert usage(accounted, BOB).json() == before[BOB]


def test_v1_usage_counts_a_period(accounted, bob):
    first = bob.completions.create(model="pocket", prompt="x", max_tokens=1)
    time.sleep(0.05)
    between = datetime.now(UTC)
    time.sleep(0.05)
    second = bob.completions.create(model="pocket", prompt="x y", max_tokens=2)

    since = usage(accounted, BOB, since=between.isoformat()).json()
    until = usage(accounted, BOB, until=between.isoformat()).json()
    both = usage(accounted, BOB).json()
    never = usage(accounted, BOB, since=(between + timedelta(days=1)).date().isoformat()).json()

    assert (since["requests"], since["prompt_tokens"]) == (1, second.usage.prompt_tokens)
    assert since["since"] == between.isoformat()
    assert until["requests"] + 1 == both["requests"]
    assert until["prompt_tokens"] >= first.usage.prompt_tokens
    assert never["requests"] == never["total_tokens"] == 0
    refused = usage(accounted, BOB, since="yesterday")
    assert refused.status_code == 400
    assert "'yesterday' is no date" in refused.json()["error"]["message"]


def test_without_a_ledger_v1_usage_says_how_to_keep_one(server):
    answer = server.get("/v1/usage")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "no_ledger"
    assert "--ledger FILE" in answer.json()["error"]["message"]


def test_a_bill_can_be_printed_while_the_server_writes(accounted, bob, ledger):
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            bob.completions.create(model="pocket", prompt="x", max_tokens=2)

    thread = threading.Thread(target=keep_busy)
    thread.start()
    try:
        for _ in range(3):
            words = [
                sys.executable,
                "-m",
                "labsupport",
                "usage",
                ledger,
                "--price-in",
                "1",
                "--price-out",
                "2",
            ]
            printed = subprocess.run(words, capture_output=True, text=True, timeout=120)
            assert printed.returncode == 0, printed.stderr
            assert "alice" in printed.stdout
            assert "bob" in printed.stdout
    finally:
        stop.set()
        thread.join()
