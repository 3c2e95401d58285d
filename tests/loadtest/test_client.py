"""What can go wrong on the wire, byte by byte, and how it is told: no real server fails on demand."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labsupport import loadtest
from labsupport.errors import LabsupportError
from labsupport.loadtest import Closed, Poisson, Prompt
from labsupport.loadtest.client import NothingToTest

sys.path.append(str(Path(__file__).parents[1] / "server"))

from scripted_upstream import Asked, ScriptedUpstream, answer

MODELS = answer(body={"object": "list", "data": [{"id": "pocket", "object": "model"}]})


def text_chunk(text: str, finish_reason: str | None = None, **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish_reason}], **more}


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        running.models = MODELS
        yield running


def one(upstream: ScriptedUpstream, prompt: object = "hello", **options: object) -> loadtest.Record:
    return loadtest.run(upstream.url, [prompt], Closed(1), **options).records[0]


def test_a_stream_is_timed_chunk_by_chunk_and_counted_by_the_servers_usage(
    upstream: ScriptedUpstream,
) -> None:
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        for text in ("", " a", " b\u2028", " c"):
            await asyncio.sleep(0.1)
            await asked.event(text_chunk(text))
        await asked.event(text_chunk("", "length"))
        usage = {"prompt_tokens": 7, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}
        await asked.event({"choices": [], "usage": usage})
        await asked.end_stream()

    upstream.script = script
    record = one(upstream, max_tokens=4, extra={"temperature": 0})

    assert record.is_ok, record.error
    assert len(record.text_times) == 3
    assert record.ttft_seconds is not None
    assert record.ttft_seconds >= 0.19, "the empty first chunk is no token"
    assert all(gap >= 0.05 for gap in record.itl_seconds)
    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (7, 4, 5)
    assert record.finish_reason == "length"
    sent = upstream.requests[0]
    assert sent.path == "/v1/completions"
    assert sent.json == {
        "model": "pocket",
        "prompt": "hello",
        "max_tokens": 4,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
    }


def test_an_event_may_come_in_any_pieces(upstream: ScriptedUpstream) -> None:
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        for byte in b'data: {"choices": [{"text": " \xc3\xa9", "finish_reason": "stop"}]}\r\n\r\n':
            await asked.piece(bytes([byte]))
        await asked.end_stream()

    upstream.script = script

    assert len(one(upstream).text_times) == 1


def test_conversations_go_to_the_chat_route_and_token_ids_as_they_are(upstream: ScriptedUpstream) -> None:
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        await asked.event({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]})
        await asked.end_stream()

    upstream.script = script
    messages = [{"role": "user", "content": "hello"}]
    report = loadtest.run(
        upstream.url, [messages, [1, 2, 3], Prompt(prompt="x", extra={"stream_options": None})], Closed(1)
    )

    assert [asked.path for asked in upstream.requests] == ["/v1/chat/completions", *["/v1/completions"] * 2]
    assert upstream.requests[0].json["messages"] == messages
    assert upstream.requests[1].json["prompt"] == [1, 2, 3]
    assert "stream_options" not in upstream.requests[2].json
    assert [record.counted_by for record in report.records] == ["chunks"] * 3


def test_without_usage_an_answer_that_ended_by_its_limit_has_as_many_tokens(
    upstream: ScriptedUpstream,
) -> None:
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(text_chunk(" several tokens", "length"))
        await asked.end_stream()

    upstream.script = script
    record = one(upstream, max_tokens=9)

    assert (record.output_tokens, record.counted_by) == (9, "limit")


def test_a_stream_that_stalls_is_given_up_though_keep_alives_come(upstream: ScriptedUpstream) -> None:
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(text_chunk(" a"))
        while not asked.client_left.is_set():
            await asked.piece(b": ping\n\n")
            await asyncio.sleep(0.1)

    upstream.script = script
    record = one(upstream, timeout_seconds=1.0)

    assert record.error == "no answer came for 1 s"
    assert 1.0 <= record.ended < 30
    assert len(record.text_times) == 1


def test_each_way_to_fail_has_its_words_and_the_run_goes_on(upstream: ScriptedUpstream) -> None:
    async def script(asked: Asked) -> None:
        which = asked.json["prompt"]
        if which == "busy":
            await asked.send(answer(429, {"error": {"message": "The queue is full.", "code": "x"}}))
            return
        await asked.open_stream()
        await asked.event(text_chunk(" a"))
        if which == "dies":
            asked.hang_up()
        elif which == "error":
            await asked.event({"error": {"message": "The engine died."}})
            await asked.end_stream(done=False)
        elif which == "garbage":
            await asked.piece(b"data: <html>\n\n")
            await asked.end_stream()
        elif which == "cut":
            await asked.end_stream()
        else:
            await asked.event(text_chunk(" b", "stop"))
            await asked.end_stream()

    upstream.script = script
    report = loadtest.run(
        upstream.url, ["busy", "dies", "error", "garbage", "cut", "fine"], Closed(1), timeout_seconds=30
    )
    errors = [record.error for record in report.records]

    assert errors[0] == "HTTP 429: The queue is full."
    assert errors[1].startswith("the connection failed (RemoteProtocolError")
    assert errors[2] == "in the stream: The engine died."
    assert errors[3] == "an event of the stream is no chunk"
    assert errors[4] == "the stream ended without a finish reason"
    assert errors[5] == ""
    assert sum(report.errors.values()) == 5
    assert len(report.answered) == 1


def test_a_kept_connection_that_the_server_closed_is_replaced_once(upstream: ScriptedUpstream) -> None:
    async def script(asked: Asked) -> None:
        which = asked.json["prompt"]
        if which == "never" or len(upstream.requests) == 2:
            asked.hang_up()
            return
        await asked.open_stream()
        await asked.event(text_chunk(" a", "stop"))
        await asked.end_stream()

    upstream.script = script
    report = loadtest.run(upstream.url, ["first", "second", "never", "fine"], Closed(1), timeout_seconds=30)
    errors = [record.error for record in report.records]

    # The second is answered, over a new connection; who never answers is asked once more, and that is it
    assert [asked.json["prompt"] for asked in upstream.requests] == [
        "first",
        *["second"] * 2,
        *["never"] * 2,
        "fine",
    ]
    assert [bool(error) for error in errors] == [False, False, True, False]
    assert errors[2].startswith("the connection failed (RemoteProtocolError")


def test_a_closed_loop_waits_for_answers_and_an_open_one_does_not(upstream: ScriptedUpstream) -> None:
    enough = 0

    async def script(asked: Asked) -> None:
        await asked.open_stream()
        for _ in range(600):  # until so many are under way at once, or a minute is over
            await asyncio.sleep(0.1)
            if upstream.most_at_once >= enough:
                break
        await asked.event(text_chunk(" a", "stop"))
        await asked.end_stream()

    upstream.script = script
    loadtest.run(upstream.url, ["x"] * 6, Closed(2), timeout_seconds=120)
    assert upstream.most_at_once <= 2

    enough = 6
    loadtest.run(upstream.url, ["x"] * 6, Poisson(1000), timeout_seconds=120)
    assert upstream.most_at_once == 6


def test_a_load_ends_in_time_but_not_before_the_requests_it_owes(upstream: ScriptedUpstream) -> None:
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        await asyncio.sleep(0.05)
        await asked.event(text_chunk(" a", "stop"))
        await asked.end_stream()

    upstream.script = script
    timed = loadtest.run(upstream.url, ["x"] * 10_000, Closed(1), seconds=0.5)
    owed = loadtest.run(upstream.url, ["x"] * 10_000, Closed(1), seconds=0.01, least_requests=7)

    assert 1 <= len(timed.records) <= 10
    assert max(record.arrived for record in timed.records) < 0.5
    assert len(owed.records) == 7


def test_nothing_listens(upstream: ScriptedUpstream) -> None:
    upstream.stop_listening()

    with pytest.raises(NothingToTest, match="nothing answers at") as refusal:
        loadtest.run(upstream.url, ["x"], Closed(1))
    assert "labsupport serve" in refusal.value.remedy
    upstream.listen()


def test_something_else_listens(upstream: ScriptedUpstream) -> None:
    for other in (
        answer(404, b"no"),
        answer(body=b"<html>", content_type="text/html"),
        answer(body={"x": 1}),
    ):
        upstream.models = other
        with pytest.raises(NothingToTest, match="no server of OpenAI's protocol") as refusal:
            loadtest.run(upstream.url, ["x"], Closed(1))
        assert "/v1/models" in refusal.value.allowed


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://127.0.0.1", "http://[", ""])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(NothingToTest, match="no URL") as refusal:
        loadtest.run(url, ["x"], Closed(1))
    assert "http://" in refusal.value.allowed


def test_a_model_that_is_not_there_or_a_choice_that_was_not_made(upstream: ScriptedUpstream) -> None:
    with pytest.raises(NothingToTest, match="has no model 'gpt-9'") as refusal:
        loadtest.run(upstream.url, ["x"], Closed(1), model="gpt-9")
    assert refusal.value.allowed == "pocket"

    upstream.models = answer(body={"data": [{"id": "a"}, {"id": "b"}]})
    with pytest.raises(NothingToTest, match="no model was named") as refusal:
        loadtest.run(upstream.url, ["x"], Closed(1))
    assert refusal.value.allowed == "a, b"


def test_a_model_that_is_not_listed_can_be_asked_for_all_the_same(upstream: ScriptedUpstream) -> None:
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(text_chunk(" a", "stop"))
        await asked.end_stream()

    upstream.script = script
    upstream.models = answer(500, b"no list")

    record = one(upstream, model="a/folder", unlisted=True)

    assert record.is_ok, record.error
    assert upstream.requests[0].json["model"] == "a/folder"


def test_a_key_that_is_missing(upstream: ScriptedUpstream) -> None:
    upstream.models = answer(401, {"error": {"message": "no"}})

    with pytest.raises(NothingToTest, match="wants a key"):
        loadtest.run(upstream.url, ["x"], Closed(1))


def test_it_runs_where_an_event_loop_runs_already_as_in_a_notebook(upstream: ScriptedUpstream) -> None:
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(text_chunk(" a", "stop"))
        await asked.end_stream()

    upstream.script = script

    async def cell() -> loadtest.Report:
        return loadtest.run(upstream.url, ["x"], Closed(1))

    assert len(asyncio.run(cell()).answered) == 1


@pytest.mark.parametrize("wrong", ["one text", [3.5], [["a", "b"]], [{"prompt": "x"}]])
def test_prompts_that_are_none_are_refused(upstream: ScriptedUpstream, wrong: object) -> None:
    with pytest.raises((LabsupportError, ExceptionGroup)) as refusal:
        loadtest.run(upstream.url, wrong, Closed(1))
    assert isinstance(refusal.value, LabsupportError)
    assert refusal.value.allowed
