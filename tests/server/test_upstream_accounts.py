"""Before an upstream, too, each request has one row: with the upstream's numbers, or none if it gave none."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from asking import ALICE, BOB, wait_until
from ledger_rows import rows, used
from relaying import SLOTS, Relay, accounted_relay, chunks_of
from scripted_upstream import Asked, Script, always, answer, chunk, completion

from labsupport.server.metrics import PREFIX

WITHOUT_USAGE = f"{PREFIX}upstream_requests_without_usage_total"
NOT_KNOWN = (None, None, None)
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 3,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("accounts")


@pytest.fixture(scope="module")
def module_relay(folder):
    with accounted_relay(folder) as running:
        yield running


@pytest.fixture
def relay(module_relay) -> Relay:
    module_relay.upstream.script = always(answer(body=completion(usage=USAGE)))
    module_relay.upstream.requests.clear()
    return module_relay


@pytest.fixture
def new_rows(relay, folder) -> Callable[[], list[dict]]:
    """The rows that came since the test began."""
    before = rows(folder / "ledger")
    return lambda: [row for id, row in rows(folder / "ledger").items() if id not in before]


def ended(new_rows: Callable[[], list[dict]]) -> dict:
    """The only new row, once it has ended."""
    wait_until(lambda: [row["finish_reason"] is not None for row in new_rows()] == [True], what="its end")
    return new_rows()[0]


def streaming(*events: dict, done: bool = True) -> Script:
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        for event in events:
            await asked.event(event)
        await asked.end_stream(done=done)

    return script


def test_a_whole_answer_leaves_one_row_with_the_upstreams_numbers(relay, new_rows):
    begin = time.time()

    response = relay.chat(key=BOB, n=1)

    (row,) = new_rows()  # durable before the answer came
    assert row["id"] == response.json()["id"]
    assert (row["key"], row["model"], row["route"]) == ("bob", "ours", "/v1/chat/completions")
    assert used(row) == (11, 4, 3)
    assert (row["finish_reason"], row["error"]) == ("stop", None)
    assert row["first_token_at"] is None  # nobody saw it come
    assert begin - 1 <= row["arrived_at"] <= row["finished_at"] <= time.time() + 1


@pytest.mark.parametrize("include_usage", [True, False], ids=["asked-for", "not-asked-for"])
def test_a_stream_leaves_the_same_row_whether_its_usage_was_asked_for_or_not(relay, new_rows, include_usage):
    relay.upstream.script = streaming(
        chunk(), chunk("a"), chunk("b", finish_reason="length"), chunk() | {"choices": [], "usage": USAGE}
    )

    events = chunks_of(relay.chat(stream=True, stream_options={"include_usage": include_usage}).text)

    (row,) = new_rows()
    assert {event["id"] for event in events} == {row["id"]}
    assert [event["usage"] for event in events if event.get("usage")] == [USAGE] * include_usage
    assert (row["key"], used(row), row["finish_reason"]) == ("alice", (11, 4, 3), "length")
    assert row["arrived_at"] < row["first_token_at"] < row["finished_at"]


def test_choices_that_end_differently_give_both_reasons(relay, new_rows):
    choices = [
        completion()["choices"][0] | {"index": index, "finish_reason": reason}
        for index, reason in enumerate(["stop", "tool_calls", "stop", "made_up", None])
    ]
    relay.upstream.script = always(answer(body=completion(choices=choices)))

    assert relay.chat(n=5).status_code == 200

    assert ended(new_rows)["finish_reason"] == "stop,tool_calls,other"


def test_plain_completions_are_accounted_too(relay, new_rows):
    choice = {"index": 0, "text": "x", "logprobs": None, "finish_reason": "stop"}
    relay.upstream.script = always(answer(body=completion(choices=[choice])))

    response = relay.http.post("/v1/completions", json={"model": "ours", "prompt": "x"})

    row = ended(new_rows)
    assert (row["id"], row["route"]) == (response.json()["id"], "/v1/completions")
    assert row["id"].startswith("cmpl-")


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": 5}, {"prompt_tokens": 5, "completion_tokens": None}],
    ids=["none", "empty", "half", "null"],
)
def test_where_the_upstream_does_not_say_what_was_used_the_row_says_that_nobody_knows(relay, new_rows, usage):
    relay.upstream.script = always(answer(body=completion(usage=usage)))
    before = relay.server.metrics()[WITHOUT_USAGE]
    told = relay.server.get("/v1/usage").json()

    assert relay.chat().status_code == 200

    row = ended(new_rows)
    assert (used(row), row["finish_reason"]) == (NOT_KNOWN, "stop")
    assert relay.server.metrics()[WITHOUT_USAGE] == before + 1
    after = relay.server.get("/v1/usage").json()
    assert after["without_usage"] == told["without_usage"] + 1
    assert after["requests"] == told["requests"] + 1
    assert after["total_tokens"] == told["total_tokens"]


def test_more_cached_tokens_than_tokens_are_not_believed(relay, new_rows):
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 12}}
    relay.upstream.script = always(answer(body=completion(usage=usage)))

    relay.chat()

    assert used(ended(new_rows)) == (11, 11, 3)


@pytest.mark.parametrize("number", [-1, 2**53 + 1, 2**64, 10**300, 1.5, "7", True])
def test_a_number_that_cannot_be_is_no_answer_and_does_not_stop_the_ledger(relay, new_rows, number):
    relay.upstream.script = always(answer(body=completion(usage=USAGE | {"completion_tokens": number})))

    response = relay.chat()

    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_bad_answer")
    row = ended(new_rows)
    assert (row["finish_reason"], row["error"], used(row)) == ("error", "upstream_bad_answer", NOT_KNOWN)


def hang_up_at_once() -> Script:
    async def script(asked: Asked) -> None:
        asked.hang_up()

    return script


def hang_up_in_the_middle() -> Script:
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(chunk("a"))
        asked.hang_up()

    return script


@pytest.mark.parametrize(
    ("script", "code", "tokens"),
    [
        # Some statuses say that it did not work on it
        (always(answer(400, {"error": {"message": "m", "code": "theirs"}})), "theirs", (0, 0, 0)),
        (always(answer(429)), "upstream_rate_limited", (0, 0, 0)),
        (always(answer(503)), "upstream_overloaded", (0, 0, 0)),
        (always(answer(307, Location="/x")), "upstream_redirect", (0, 0, 0)),
        (streaming({"error": {"message": "m", "code": 429}}), "upstream_rate_limited", (0, 0, 0)),
        # and some that it failed, perhaps after the work
        (always(answer(500)), "upstream_failed", NOT_KNOWN),
        (always(answer(502, b"<html>", "text/html")), "upstream_failed", NOT_KNOWN),
        (always(answer(504)), "upstream_timeout", NOT_KNOWN),
        (always(answer(408)), "upstream_timeout", NOT_KNOWN),
        (always(answer(201, completion())), "upstream_unexpected_status", (11, 0, 3)),
        (streaming(chunk("a"), {"error": {"message": "m", "code": 429}}), "upstream_rate_limited", NOT_KNOWN),
        # An error that tells its use is believed, unless what it tells cannot be
        (always(answer(500, {"error": {"message": "m"}, "usage": USAGE})), "upstream_failed", (11, 4, 3)),
        (always(answer(503, {"error": "m", "usage": USAGE})), "upstream_overloaded", (11, 4, 3)),
        (always(answer(500, {"usage": USAGE | {"prompt_tokens": -1}})), "upstream_failed", NOT_KNOWN),
        (always(answer(500, {"usage": "all"})), "upstream_failed", NOT_KNOWN),
        (streaming(chunk("a"), {"error": {"code": 500}, "usage": USAGE}), "upstream_failed", (11, 4, 3)),
        # What it did before it broke off, nobody knows
        (hang_up_at_once(), "upstream_disconnected", NOT_KNOWN),
        (hang_up_in_the_middle(), "upstream_disconnected", NOT_KNOWN),
        (streaming(chunk("a"), {"error": {"message": "m", "code": 500}}), "upstream_failed", NOT_KNOWN),
        # unless it had said so
        (streaming(chunk("a") | {"usage": USAGE}, done=False), "upstream_disconnected", (11, 4, 3)),
        (always(answer(200, b"<html>", "text/html")), "upstream_bad_answer", NOT_KNOWN),
    ],
    ids=[
        "400",
        "429",
        "503",
        "307",
        "429-event",
        "500",
        "502",
        "504",
        "408",
        "201",
        "429-event-after-a-chunk",
        "500-told",
        "503-told",
        "500-told-nonsense",
        "500-told-no-object",
        "error-event-told",
        "hung-up",
        "broke-off",
        "error-event",
        "said-before",
        "html",
    ],
)
def test_a_failure_has_a_row_with_its_code(relay, new_rows, script, code, tokens):
    relay.upstream.script = script

    relay.chat(stream=True)

    row = ended(new_rows)
    assert (row["finish_reason"], row["error"], used(row)) == ("error", code, tokens)


def test_an_upstream_that_is_not_there_has_used_nothing(relay, new_rows):
    relay.upstream.stop_listening()
    assert relay.chat().status_code == 503
    relay.upstream.listen()

    row = ended(new_rows)
    assert (row["error"], used(row)) == ("upstream_unreachable", (0, 0, 0))


def test_a_refused_request_leaves_no_row(relay, new_rows):
    assert relay.chat(model="other").status_code == 404
    assert relay.chat(temperature=9).status_code == 400
    assert relay.chat(key="wrong").status_code == 401
    assert relay.chat(n=2 * SLOTS + 1).status_code == 400
    assert new_rows() == []
    assert relay.upstream.requests == []


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_leaves_is_an_abort_whose_use_nobody_knows(relay, new_rows, stream):
    async def never_ending(asked: Asked) -> None:
        if stream:
            await asked.open_stream()
            await asked.event(chunk("a"))
        await asked.until_client_left()

    relay.upstream.script = never_ending

    with suppress(httpx.ReadTimeout):
        httpx.post(
            f"{relay.server.url}/v1/chat/completions",
            json={"model": "ours", "messages": [{"role": "user", "content": "x"}], "stream": stream},
            headers={"Authorization": f"Bearer {ALICE}"},
            timeout=httpx.Timeout(30, read=3),
        )

    row = ended(new_rows)
    assert (row["finish_reason"], row["error"], used(row)) == ("abort", None, NOT_KNOWN)
    (asked,) = relay.upstream.requests
    assert asked.client_left.wait(30)


def test_who_hangs_up_at_the_finish_reason_has_been_billed(relay, new_rows):
    async def usage_a_little_later(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(chunk("a"))
        await asked.event(chunk("", finish_reason="stop"))
        await asyncio.sleep(2)
        await asked.event(chunk() | {"choices": [], "usage": USAGE})
        await asked.end_stream()

    relay.upstream.script = usage_a_little_later
    with relay.lines() as response:
        next(line for line in response.iter_lines() if '"finish_reason":"stop"' in line)

    assert used(ended(new_rows)) == (11, 4, 3)


@pytest.mark.parametrize("choices", [[], [{"index": 0, "delta": {"content": "late"}}]], ids=["none", "more"])
def test_only_one_event_is_held_and_only_until_the_next(relay, choices):
    async def without_usage(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(chunk("a", finish_reason="stop"))
        for number in range(3):
            await asked.event(chunk() | {"choices": choices, "number": number})
        await asked.end_stream()

    relay.upstream.script = without_usage

    first, *others = chunks_of(relay.chat(stream=True).text)
    assert first["choices"][0]["finish_reason"] == "stop"
    assert [event["number"] for event in others] == [0, 1, 2]


def test_a_stream_that_breaks_off_after_the_finish_reason_has_shown_it(relay, new_rows):
    async def breaks_off(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(chunk("a", finish_reason="stop"))
        asked.hang_up()

    relay.upstream.script = breaks_off

    first, last = (line for line in relay.chat(stream=True).text.splitlines() if line)
    assert '"finish_reason":"stop"' in first
    assert '"code":"upstream_disconnected"' in last
    assert used(ended(new_rows)) == NOT_KNOWN


def test_who_leaves_while_waiting_for_a_turn_has_used_nothing(relay, folder):
    before = rows(folder / "ledger").keys()
    go_on = threading.Event()

    async def held(asked: Asked) -> None:
        await asked.wait_for(go_on)
        await asked.send(answer(body=completion()))

    relay.upstream.script = held
    threads = [threading.Thread(target=relay.chat) for _ in range(SLOTS)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(relay.upstream.requests) == SLOTS, what="all turns taken")

    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{relay.server.url}/v1/chat/completions",
            json={"model": "ours", "messages": [{"role": "user", "content": "x"}]},
            headers={"Authorization": f"Bearer {BOB}"},
            timeout=httpx.Timeout(30, read=2),
        )

    def bobs() -> list[dict]:
        return [
            row for id, row in rows(folder / "ledger").items() if id not in before and row["key"] == "bob"
        ]

    wait_until(lambda: [row["finish_reason"] for row in bobs()] == ["abort"], what="the abort")
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert used(bobs()[0]) == (0, 0, 0)
    assert len(relay.upstream.requests) == SLOTS


def test_the_ledger_shows_in_the_metrics_that_all_is_well(relay, new_rows):
    relay.chat()

    samples = relay.server.metrics()
    assert samples[f"{PREFIX}ledger_unavailable"] == 0
    assert samples[f"{PREFIX}ledger_lag_seconds"] == 0
    assert samples[f"{PREFIX}ledger_write_failures_total"] == 0
