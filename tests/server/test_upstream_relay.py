"""Before an upstream: what crosses, what does not, in which order, and what is counted."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import typing

import httpx
import psutil
import pytest
from asking import KEY, wait_until
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from relaying import BODY, SLOTS, UPSTREAM_KEY, chunks_of, relay_before_script
from scripted_upstream import Asked, always, answer, chunk, completion

from labsupport.server.metrics import PREFIX
from labsupport.server.upstream.requests import (
    PASSED_IN_CHAT,
    PASSED_IN_COMPLETION,
    RelayedChat,
    RelayedCompletion,
)

ABORTED = 'request_success_total{finished_reason="abort"}'
WITHOUT_USAGE = "upstream_requests_without_usage_total"


@pytest.fixture(scope="module")
def module_relay(tmp_path_factory):
    with relay_before_script(tmp_path_factory.mktemp("relay")) as running:
        yield running


@pytest.fixture
def relay(module_relay):
    """As new: the default script, and nothing recorded."""
    module_relay.upstream.script = always(answer(body=completion()))
    module_relay.upstream.requests.clear()
    return module_relay


@pytest.fixture
def grown(relay):
    """How much a counter has grown since the test began."""
    before = relay.server.metrics()
    return lambda name: relay.server.metrics()[PREFIX + name] - before.get(PREFIX + name, 0)


async def stream_of_three(asked: Asked) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 40, "total_tokens": 47}
    details = {"prompt_tokens_details": {"cached_tokens": 5}}
    await asked.open_stream()
    await asked.event(chunk() | {"usage": None})
    await asked.event(chunk("Hel") | {"usage": None})
    await asked.event(chunk("lo", finish_reason="stop") | {"usage": None})
    await asked.event(chunk() | {"choices": [], "usage": usage | details})
    await asked.end_stream()


def test_every_event_leaves_before_the_next_one_comes(relay):
    received = [threading.Event() for _ in range(4)]

    async def one_at_a_time(asked: Asked) -> None:
        await asked.open_stream()
        for place, text in enumerate("abcd"):
            await asked.event(chunk(text))
            await asked.wait_for(received[place])  # the test must have it before more is sent
        await asked.event(chunk("", finish_reason="stop"))
        await asked.end_stream()

    relay.upstream.script = one_at_a_time
    with relay.lines() as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = (line for line in response.iter_lines() if line)
        for place, text in enumerate("abcd"):
            event = json.loads(next(events).removeprefix("data: "))
            assert event["choices"][0]["delta"]["content"] == text
            received[place].set()
        assert '"finish_reason":"stop"' in next(events)
        assert next(events) == "data: [DONE]"


def test_an_event_cut_into_bytes_arrives_whole(relay):
    async def in_bytes(asked: Asked) -> None:
        await asked.open_stream()
        event = json.dumps(chunk("é☃\U0001f600", finish_reason="stop"), ensure_ascii=False)
        for byte in f": busy\r\n\r\ndata: {event}\r\n\r\n".encode():
            await asked.piece(bytes([byte]))
        await asked.end_stream()

    relay.upstream.script = in_bytes

    (only,) = chunks_of(relay.chat(stream=True).text)
    assert only["choices"][0]["delta"]["content"] == "é☃\U0001f600"


def test_the_answer_is_the_upstreams_but_for_its_id_and_the_models_name(relay):
    extra = {
        "system_fingerprint": "fp",
        "service_tier": "default",
        "error": None,
        "x_new": [1.5, None, "\ud800"],
    }
    relay.upstream.script = always(answer(body=completion(**extra)))

    answered = relay.chat().json()
    assert answered == completion(**extra, model="ours", id=answered["id"])

    async def streamed(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(chunk("a", finish_reason="stop", **extra))
        await asked.end_stream()

    relay.upstream.script = streamed
    (event,) = chunks_of(relay.chat(stream=True).text)
    assert event == chunk("a", finish_reason="stop", **extra, model="ours", id=event["id"])
    # The id is one that this server gave: an upstream's own may be anybody's
    assert len({"chatcmpl-1", answered["id"], event["id"]}) == 3


def test_usage_is_always_asked_for_and_shown_only_to_who_asked(relay, grown):
    relay.upstream.script = stream_of_three

    quiet = chunks_of(relay.chat(stream=True).text)
    told = chunks_of(relay.chat(stream=True, stream_options={"include_usage": True}).text)

    assert [request.json["stream_options"] for request in relay.upstream.requests] == [
        {"include_usage": True}
    ] * 2
    assert len(quiet) == 3
    assert not any("usage" in event for event in quiet)
    assert [event["usage"] and event["usage"]["completion_tokens"] for event in told] == [
        None,
        None,
        None,
        40,
    ]
    assert told[-1]["choices"] == []
    assert grown("prompt_tokens_total") == 2 * 7
    assert grown("prefix_cache_hits_total") == 2 * 5
    assert grown("generation_tokens_total") == 2 * 40
    assert grown('request_success_total{finished_reason="stop"}') == 2
    assert grown("time_to_first_token_seconds_count") == 2
    assert grown("inter_token_latency_seconds_count") == 2
    assert grown(WITHOUT_USAGE) == 0


def test_a_whole_answer_is_counted_too_and_one_without_usage_is_not_guessed(relay, grown):
    relay.chat()
    relay.upstream.script = always(answer(body=completion(usage=None)))
    relay.chat()

    assert grown("prompt_tokens_total") == 11
    assert grown("generation_tokens_total") == 3
    assert grown('request_success_total{finished_reason="stop"}') == 2
    assert grown(WITHOUT_USAGE) == 1


def test_only_listed_headers_cross_in_either_direction(relay):
    returned = {
        "Set_Cookie": "session=1; Path=/",
        "X_RateLimit_Limit": "9",
        "X_Request_Id": "theirs-1",
        "Keep_Alive": "timeout=9",
    }
    relay.upstream.script = always(answer(body=completion(), **returned))
    given = {
        "X-Request-Id": "ours-1",
        "traceparent": "00-1-2-01",
        "Cookie": "a=b",
        "OpenAI-Organization": "org",
        "X-Forwarded-For": "10.0.0.1",
        "X-Api-Key": KEY,
        # for one hop alone
        "TE": "trailers",
        "Keep-Alive": "timeout=9",
        "Proxy-Authorization": f"Basic {KEY}",
        "Proxy-Connection": "keep-alive",
    }

    answers = [
        relay.http.post("/v1/chat/completions", json=BODY, headers=given),
        relay.http.post("/v1/chat/completions", json=BODY),
    ]

    first, second = (request.headers for request in relay.upstream.requests)
    always_sent = {
        "host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length",
        "authorization",
    }  # fmt: skip
    assert first.keys() == always_sent | {"x-request-id", "traceparent"}
    assert second.keys() == always_sent
    assert first["x-request-id"] == "ours-1"
    assert first["authorization"] == second["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert first["accept-encoding"] == "identity"
    for response in answers:
        assert response.headers.keys() == {"date", "server", "content-length", "content-type", "x-request-id"}
        assert response.headers["x-request-id"] == "theirs-1"
    with relay.lines() as response:
        response.read()
    assert "set-cookie" not in response.headers


def test_neither_key_is_in_the_command_line_or_reaches_the_other_side(relay):
    relay.chat()

    command = " ".join(psutil.Process(relay.server.pid).cmdline())
    assert UPSTREAM_KEY not in command
    assert KEY not in command
    (request,) = relay.upstream.requests
    assert KEY not in json.dumps(request.headers) + request.body.decode()


def test_without_our_key_the_upstream_is_never_asked(relay):
    response = httpx.post(f"{relay.server.url}/v1/chat/completions", json=BODY)

    assert response.status_code == 401
    wrong = {"Authorization": f"Bearer {UPSTREAM_KEY}"}
    assert httpx.post(f"{relay.server.url}/v1/chat/completions", json=BODY, headers=wrong).status_code == 401
    assert relay.upstream.requests == []


def test_what_a_client_asks_goes_through_as_it_came(relay):
    given = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Where?"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
            {"role": "tool", "tool_call_id": "1", "content": "Here."},
        ],
        "n": 3, "logprobs": True, "top_logprobs": 2, "seed": 0, "stop": ["a", "b"], "temperature": 0,
        "logit_bias": {"5": -100}, "frequency_penalty": 0.5, "max_completion_tokens": 9, "user": "u",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "chat_template_kwargs": {"enable_thinking": False}, "top_k": 5, "min_p": 0.1, "store": False,
        "service_tier": "default",
    }  # fmt: skip

    assert relay.chat(**given).status_code == 200
    plain = {"model": "ours", "prompt": [[1, 2], [3]], "echo": True, "logprobs": 2, "n": 2}
    relay.http.post("/v1/completions", json=plain)

    chat, complete = relay.upstream.requests
    assert chat.path == "/v1/chat/completions"
    assert chat.json == BODY | given | {"model": "theirs"}
    assert complete.path == "/v1/completions"
    assert complete.json == plain | {"model": "theirs"}


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"n": 17}, "n", "invalid_value"),
        ({"n": 9}, "n", "too_many_sequences"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"chat_template": "{{ 1 }}"}, "chat_template", "unknown_parameter"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"service_tier": "priority"}, "service_tier", "unsupported_parameter"),
        ({"web_search_options": {}}, "web_search_options", "unsupported_parameter"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"logit_bias": {"5": float("nan")}}, None, "invalid_json"),
        ({"tools": [{"name": "\ud800"}]}, None, "invalid_json"),
    ],
)
def test_what_can_never_work_is_refused_before_the_upstream_is_asked(relay, change, param, code):
    content = json.dumps(BODY | change)
    response = relay.http.post(
        "/v1/chat/completions", content=content, headers={"Content-Type": "application/json"}
    )

    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert response.json()["error"]["code"] == code
    assert relay.upstream.requests == []


@pytest.mark.parametrize(
    ("parameters", "request_type", "passed", "refused"),
    [
        # what they cost is not in the tokens, which our ledger counts
        (
            chat_create_params.CompletionCreateParamsNonStreaming,
            RelayedChat,
            PASSED_IN_CHAT,
            {"service_tier", "web_search_options"},
        ),
        # the work it asks for is not in n, which our limits count
        (
            completion_create_params.CompletionCreateParamsNonStreaming,
            RelayedCompletion,
            PASSED_IN_COMPLETION,
            {"best_of"},
        ),
    ],
)
def test_every_parameter_of_the_official_client_is_known(parameters, request_type, passed, refused):
    known = typing.get_type_hints(parameters).keys()

    assert known - request_type.model_fields.keys() - passed == refused


def test_the_model_is_asked_for_by_our_name_alone(relay):
    response = relay.chat(model="theirs")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert relay.upstream.requests == []
    assert [card["id"] for card in relay.http.get("/v1/models").json()["data"]] == ["ours"]
    assert relay.http.get("/v1/models/ours").json()["id"] == "ours"


def test_there_is_no_tokenizer_and_the_error_says_so(relay):
    response = relay.http.post("/tokenize", json={"prompt": "x"})

    assert response.status_code == 501
    assert response.json()["error"]["code"] == "no_tokenizer"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("moment", ["unanswered", "answering"])
def test_a_client_that_leaves_ends_the_upstreams_request(relay, grown, stream, moment):
    reached = threading.Event()

    async def never_ending(asked: Asked) -> None:
        if moment == "answering" and stream:
            await asked.open_stream()
            await asked.event(chunk("a"))
        elif moment == "answering":
            await asked.send(
                b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"a'
            )
        reached.set()
        await asked.until_client_left()

    relay.upstream.script = never_ending

    async def leave() -> None:
        async with httpx.AsyncClient(base_url=relay.server.url, headers=relay.http.headers) as client:
            asking = asyncio.create_task(client.post("/v1/chat/completions", json=BODY | {"stream": stream}))
            assert await asyncio.to_thread(reached.wait, 60)
            asking.cancel()

    asyncio.run(leave())

    (asked,) = relay.upstream.requests
    assert asked.client_left.wait(10), "the upstream still works for nobody"
    wait_until(lambda: grown(ABORTED) == 1, what="the count of aborts")
    assert grown(WITHOUT_USAGE) == 1
    assert relay.server.metrics()[f"{PREFIX}num_requests_running"] == 0


def test_no_more_are_asked_at_once_than_there_are_turns_and_no_more_wait_than_there_are_places(relay, grown):
    responses = crowd(relay)

    assert sorted(response.status_code for response in responses) == [200] * 2 * SLOTS + [429] * SLOTS
    refused = next(response for response in responses if response.status_code == 429)
    assert refused.json()["error"]["code"] == "queue_full"
    assert int(refused.headers["retry-after"]) >= 1
    assert relay.upstream.most_at_once == SLOTS
    assert grown("request_queue_time_seconds_count") == 2 * SLOTS


def crowd(relay) -> list[httpx.Response]:
    """Three requests to each turn, held until the first fill the turns, the second the queue."""
    go_on = threading.Event()

    async def held(asked: Asked) -> None:
        await asked.wait_for(go_on)
        await asked.send(answer(body=completion()))

    relay.upstream.script = held
    relay.upstream.requests.clear()
    relay.upstream.most_at_once = 0

    async def everybody() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            base_url=relay.server.url, headers=relay.http.headers, timeout=60
        ) as client:
            asking = [
                asyncio.create_task(client.post("/v1/chat/completions", json=BODY)) for _ in range(3 * SLOTS)
            ]
            await asyncio.to_thread(wait_until, lambda: len(relay.upstream.requests) == SLOTS)
            await asyncio.to_thread(wait_until, lambda: sum(task.done() for task in asking) == SLOTS)
            gauges = relay.server.metrics()
            assert gauges[f"{PREFIX}num_requests_running"] == gauges[f"{PREFIX}num_requests_waiting"] == SLOTS
            go_on.set()
            return await asyncio.gather(*asking)

    return asyncio.run(everybody())


def test_who_leaves_while_waiting_for_a_turn_is_never_asked_for(relay):
    go_on = threading.Event()

    async def held(asked: Asked) -> None:
        await asked.wait_for(go_on)
        await asked.send(answer(body=completion()))

    relay.upstream.script = held

    def waiting() -> float:
        return relay.server.metrics()[f"{PREFIX}num_requests_waiting"]

    async def leave() -> None:
        async with httpx.AsyncClient(
            base_url=relay.server.url, headers=relay.http.headers, timeout=60
        ) as client:
            asking = [
                asyncio.create_task(client.post("/v1/chat/completions", json=BODY)) for _ in range(SLOTS)
            ]
            await asyncio.to_thread(wait_until, lambda: len(relay.upstream.requests) == SLOTS)
            late = asyncio.create_task(client.post("/v1/chat/completions", json=BODY))
            await asyncio.to_thread(wait_until, lambda: waiting() == 1)
            late.cancel()
            await asyncio.to_thread(wait_until, lambda: waiting() == 0)
            go_on.set()
            await asyncio.gather(*asking)

    asyncio.run(leave())

    assert relay.chat().status_code == 200
    assert len(relay.upstream.requests) == SLOTS + 1


def test_clients_that_leave_at_any_moment_leave_every_turn_free(relay):
    async def slow(asked: Asked) -> None:
        await asked.open_stream()
        for _ in range(20):
            await asked.event(chunk("a"))
            await asyncio.sleep(0.01)
        await asked.event(chunk("b", finish_reason="stop"))
        await asked.end_stream()

    relay.upstream.script = slow

    async def leave_at_random() -> None:
        async with httpx.AsyncClient(base_url=relay.server.url, headers=relay.http.headers) as client:

            async def ask(seconds: float) -> None:
                post = client.post("/v1/chat/completions", json=BODY | {"stream": True})
                try:
                    await asyncio.wait_for(post, seconds)
                except TimeoutError:
                    return

            moments = random.Random(3)
            for _ in range(12):
                await asyncio.gather(*(ask(moments.uniform(0.001, 0.3)) for _ in range(2 * SLOTS)))

    asyncio.run(leave_at_random())

    def is_idle() -> bool:
        gauges = relay.server.metrics()
        return gauges[f"{PREFIX}num_requests_running"] == gauges[f"{PREFIX}num_requests_waiting"] == 0

    wait_until(is_idle, what="no request in hand")
    assert sum(response.status_code == 200 for response in crowd(relay)) == 2 * SLOTS


def test_answers_never_cross(relay):
    async def echo(asked: Asked) -> None:
        marker = asked.json["messages"][0]["content"]
        await asked.open_stream(X_Request_Id=marker)
        for number in range(5):
            await asyncio.sleep(random.random() / 100)
            await asked.event(chunk(f"{marker}-{number} "))
        await asked.event(chunk("", finish_reason="stop"))
        await asked.end_stream()

    relay.upstream.script = echo

    async def everybody() -> None:
        async with httpx.AsyncClient(
            base_url=relay.server.url, headers=relay.http.headers, timeout=60
        ) as client:

            async def ask(number: int) -> None:
                body = BODY | {"stream": True, "messages": [{"role": "user", "content": f"marker{number}"}]}
                response = await client.post("/v1/chat/completions", json=body)
                texts = [event["choices"][0]["delta"]["content"] for event in chunks_of(response.text)]
                assert texts == [*(f"marker{number}-{place} " for place in range(5)), ""]
                assert response.headers["x-request-id"] == f"marker{number}"

            for first in range(0, 96, 2 * SLOTS):
                await asyncio.gather(*(ask(first + more) for more in range(2 * SLOTS)))

    asyncio.run(everybody())


def test_a_connection_is_used_again_after_a_stream(relay):
    relay.upstream.script = stream_of_three
    relay.chat(stream=True)
    before = relay.upstream.connections

    for _ in range(5):
        chunks_of(relay.chat(stream=True).text)

    assert relay.upstream.connections == before


def test_readiness_is_the_upstreams_and_is_not_asked_for_each_time(relay):
    def status() -> str:
        return relay.http.get("/health/ready").json()["status"]

    healthy = relay.upstream.models
    for models, word in (
        (answer(500), "failing"),
        (answer(401), "key_refused"),
        (answer(302, Location="http://example.invalid/"), "failing"),
        (b"", "unreachable"),
        (b"HTTP/1.1 what?\r\n\r\n", "unreachable"),
        (answer(404), "ready"),
        (healthy, "ready"),
    ):
        relay.upstream.models = models
        wait_until(lambda word=word: status() == word, what=word)
        response = relay.http.get("/health/ready")
        assert (response.status_code == 200) == (word == "ready")
        assert relay.server.metrics()[f"{PREFIX}engine_ready"] == (word == "ready")

    before = relay.upstream.probes
    for _ in range(200):
        relay.http.get("/health/ready")
    assert relay.upstream.probes - before < 20
    assert "the upstream is key_refused" in relay.server.log_tail(10_000)


def test_routes_of_our_own_engine_are_not_there(relay):
    assert relay.http.get("/debug/engine").status_code == 404
