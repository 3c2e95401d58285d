"""Every bad request is a 4xx in OpenAI's error format that names what is wrong, and harms nobody."""

from __future__ import annotations

import asyncio
import json
import socket
from http.client import HTTPResponse

import httpx
import openai
import pytest
from agreement import agreed_tokens, stream
from asking import ASK, is_idle

CHAT = {"model": "pocket", "messages": ASK, "max_tokens": 2}
PLAIN = {"model": "pocket", "prompt": "x", "max_tokens": 2}

# A change to a good request, the parameter that the refusal names, and what it says.
BAD_CHAT = [
    ({"max_tokens": -1}, "max_tokens", "-1"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": 10**9}, "max_tokens", "1000000000 in the completion"),
    ({"max_tokens": 10**400}, "max_tokens", "less than"),
    ({"max_tokens": "5"}, "max_tokens", "'5'"),
    ({"max_tokens": 2.5}, "max_tokens", "2.5"),
    ({"max_tokens": True}, "max_tokens", "True"),
    ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", "give one"),
    ({"temperature": -0.1}, "temperature", "-0.1"),
    ({"temperature": 2.1}, "temperature", "2.1"),
    ({"temperature": "hot"}, "temperature", "hot"),
    ({"temperature": True}, "temperature", "True"),
    ({"top_p": 0}, "top_p", "greater than 0"),
    ({"top_p": 1.5}, "top_p", "1.5"),
    ({"top_k": -2}, "top_k", "-2"),
    ({"min_p": 1.01}, "min_p", "1.01"),
    ({"seed": 2**64}, "seed", "Given"),
    ({"seed": 0.5}, "seed", "0.5"),
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": 1000}, "n", "1000"),
    ({"stop": ""}, "stop", "''"),
    ({"stop": ["a", ""]}, "stop[1]", "at least 1"),
    ({"stop": ["a"] * 5}, "stop", "at most 4"),
    ({"stop": 7}, "stop", "7"),
    ({"stream": "yes"}, "stream", "yes"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream=true"),
    ({"stream": True, "stream_options": {"nope": 1}}, "stream_options.nope", "Unknown"),
    ({"top_logprobs": 3}, "top_logprobs", "logprobs=true"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "21"),
    ({"logprobs": 3}, "logprobs", "3"),
    ({"temprature": 1}, "temprature", "Unknown parameter"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "xml"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "json_schema"),
    ({"response_format": {"type": "json_object"}, "ignore_eos": True}, None, "ignore_eos"),
    ({"tools": [{"type": "function"}]}, "tools", "not supported"),
    ({"frequency_penalty": 2.1}, "frequency_penalty", "2.1"),
    ({"presence_penalty": -3}, "presence_penalty", "-3"),
    ({"repetition_penalty": 0}, "repetition_penalty", "greater than"),
    ({"logit_bias": {"hello": 5}}, "logit_bias.hello", "pattern"),
    ({"logit_bias": {"1": 101}}, "logit_bias", "101"),
    ({"logit_bias": {"1": "5"}}, "logit_bias", "'5'"),
    ({"logit_bias": [[1, 5]]}, "logit_bias", "dictionary"),
    ({"logit_bias": {str(token): 1 for token in range(301)}}, "logit_bias", "at most 300"),
    ({"logit_bias": {"1000000": 5}}, None, "token 1000000"),
    ({"messages": []}, "messages", "at least 1"),
    ({"messages": "hi"}, "messages", "hi"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "robot"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "tool"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "Missing"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "None"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].type",
        "image_url",
    ),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content", "surrogate"),
    ({"\ud800": 1}, None, ""),
    ({"☃ 1": 1}, "☃ 1", "☃ 1"),
    ({"str": 1}, "str", "str"),
    ({"": 1}, "(an empty name)", "Unknown"),
    ({"messages": [{"role": "user", "content": "x"}] * 600}, "messages", "600 messages"),
    ({"model": None}, "model", "None"),
]
BAD_COMPLETIONS = [
    ({"prompt": []}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt[1]"),
    ({"prompt": [[1], []]}, "prompt[1]"),
    ({"prompt": [-1]}, "prompt[0]"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"logprobs": 6}, "logprobs"),
    ({"echo": True}, "echo"),
    ({"best_of": 3}, "best_of"),
    ({"suffix": "x"}, "suffix"),
    ({"messages": ASK}, "messages"),
    ({"prompt": ["x"] * 1000}, "n"),
]
NO_REQUESTS = [b'{"model": "pocket", ', b"", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b"{}"]
JSON = {"Content-Type": "application/json"}


def refused(response: httpx.Response, status: int = 400) -> dict:
    """The error object, once its shape is right."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["code"]
    return error


@pytest.mark.parametrize(("change", "param", "says"), BAD_CHAT)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_bad_chat_parameter_is_named_before_any_stream_opens(http, change, param, says, streamed):
    body = CHAT | ({"stream": True} if streamed and "stream_options" not in change else {}) | change

    content = json.dumps(body)  # escapes lone surrogates, as a client's JSON library may
    error = refused(http.post("/v1/chat/completions", content=content, headers=JSON))

    assert param is None or error["param"] == param
    assert says in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(("change", "param"), BAD_COMPLETIONS)
def test_a_bad_completion_parameter_is_named(http, change, param):
    assert refused(http.post("/v1/completions", json=PLAIN | change))["param"] == param


def test_a_token_outside_the_vocabulary_is_refused(http):
    error = refused(http.post("/v1/completions", json=PLAIN | {"prompt": [1, 10**6]}))

    assert "1000000" in error["message"]


def test_a_prompt_longer_than_the_context_is_refused_with_the_counts(http):
    ids = http.post("/tokenize", json={"prompt": "word " * 1100}).json()["tokens"]

    error = refused(http.post("/v1/completions", json=PLAIN | {"prompt": "word " * 1100}))
    by_ids = refused(http.post("/v1/completions", json=PLAIN | {"prompt": ids}))

    for found in (error, by_ids):
        assert found["code"] == "context_length_exceeded"
        assert "512" in found["message"]
        assert str(len(ids)) in found["message"]


def test_megabytes_of_prompt_are_refused_without_being_tokenized(http):
    long = [{"role": "user", "content": "a" * 4_000_000}]

    response = http.post("/v1/chat/completions", json=CHAT | {"messages": long})

    assert "at least" in refused(response)["message"]
    assert response.elapsed.total_seconds() < 20


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/tokenize"])
@pytest.mark.parametrize("content", NO_REQUESTS)
def test_a_body_that_is_no_request_is_refused(http, path, content):
    response = http.post(path, content=content, headers=JSON)

    assert response.status_code == 400, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_not_a_number_is_refused(http):
    body = '{"model": "pocket", "prompt": "x", "temperature": NaN}'
    response = http.post("/v1/completions", content=body, headers=JSON)

    assert refused(response)["param"] == "temperature"


def test_a_body_that_is_not_declared_json_is_refused(http):
    response = http.post("/v1/completions", content=b"{}", headers={"Content-Type": "text/plain"})

    assert "application/json" in refused(response)["message"]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_over_the_limit_is_not_read(http, is_chunked):
    megabyte = b"a" * 2**20
    content = (megabyte for _ in range(12)) if is_chunked else megabyte * 12
    response = httpx.post(f"{http.base_url}/v1/completions", content=content, headers=JSON)

    assert refused(response, 413)["code"] == "body_too_large"


def test_an_unknown_model_and_a_wrong_route_are_404_and_a_wrong_method_405(http):
    assert refused(http.post("/v1/completions", json=PLAIN | {"model": "☃"}), 404)["param"] == "model"
    assert (
        len(refused(http.post("/v1/completions", json=PLAIN | {"model": "a" * 10**6}), 404)["message"]) < 200
    )
    assert "/v1/embeddings" in refused(http.post("/v1/embeddings", json={}), 404)["message"]
    assert refused(http.get("/v1/chat/completions"), 405)["code"] == "method_not_allowed"
    assert refused(http.get("/debug/nothing"), 404)
    assert refused(http.get("/docs"), 404)  # FastAPI's page would fetch its scripts from the network


NO_HTTP = {
    "not text": b"\x00\x01 nonsense\r\n\r\n",
    "a header without end": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 2**18,
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "two lengths": b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a negative length": b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    "a broken chunk": b"POST /v1/completions HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
}


@pytest.mark.parametrize("what", NO_HTTP)
def test_what_is_not_http_is_refused_like_everything_else(server, what):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(NO_HTTP[what])
        answer = HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
        error = json.loads(answer.read())["error"]

    assert error["code"] == "invalid_http"
    assert error["type"] == "invalid_request_error"
    assert "Invalid HTTP request" in error["message"]


def test_a_slash_too_many_is_no_route_and_no_redirect(http):
    assert refused(http.post("/v1/completions/", json=PLAIN), 404)["code"] == "unknown_url"


def test_tokenize_wants_a_prompt_or_messages_not_both_or_neither(http):
    refused(http.post("/tokenize", json={}))
    refused(http.post("/tokenize", json={"prompt": "x", "messages": ASK}))


def test_parameters_that_are_switched_off_are_accepted(http):
    off = {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "tools": [], "user": "me"}
    off |= {
        "response_format": {"type": "text"},
        "stop": None,
        "seed": None,
        "top_k": -1,
        "metadata": {"a": "b"},
    }

    assert http.post("/v1/chat/completions", json=CHAT | off).status_code == 200


def test_a_good_answer_that_streams_beside_all_of_them_stays_as_it_was(server):
    bad = [("/v1/chat/completions", json.dumps(CHAT | change)) for change, *_ in BAD_CHAT]
    bad += [("/v1/completions", json.dumps(PLAIN | change)) for change, _ in BAD_COMPLETIONS]
    bad += [("/v1/completions", content) for content in NO_REQUESTS]
    bad += [("/v1/completions", json.dumps(PLAIN | {"prompt": "word " * 1100}))]

    async def sweep_beside_an_answer():
        def good():
            return stream(client, ASK[0]["content"], max_tokens=440, extra_body={"ignore_eos": True})

        async with (
            openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
            httpx.AsyncClient(base_url=server.url, timeout=60) as http,
        ):
            alone, beside = await good(), []
            running = asyncio.create_task(good())
            for path, content in bad:
                assert 400 <= (await http.post(path, content=content, headers=JSON)).status_code < 500
                if running.done():  # the sweep took longer than an answer: none of it goes unwatched
                    beside.append(await running)
                    running = asyncio.create_task(good())
            return alone, [*beside, await running]

    alone, beside = asyncio.run(sweep_beside_an_answer())

    assert all(len(answer) == len(alone) == 440 for answer in beside)
    assert agreed_tokens([(alone, answer) for answer in beside]) >= 32 * len(beside)


def test_after_all_of_this_the_engine_holds_nothing(http, server):
    assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert is_idle(server)
