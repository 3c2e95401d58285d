"""Requests made to do harm: each is refused or served, soon, and harms nobody who is served beside it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
from asking import ASK, is_idle, wait_until
from pace import HealthWatch, computed_seconds

import labsupport
from labsupport.server.app import LARGEST_BODY_BYTES

JSON = {"Content-Type": "application/json"}
ROOM = LARGEST_BODY_BYTES - 2000
MOST_COMPUTED_SECONDS = 8
"""Of the server's processor time. Most of these took minutes, or for ever, before they were mended."""


def filled(head: str, piece: str, tail: str) -> bytes:
    """A body of nearly all the bytes that the server reads, of `piece` over and over."""
    return (head + piece * ((ROOM - len(head) - len(tail)) // len(piece)) + tail).encode()


def many_fields(head: str, tail: str) -> bytes:
    return (head + ",".join(f'"k{number}":1' for number in range(ROOM // 12)) + tail).encode()


CONTROL, PRIVATE = "<|im_end|>", "".join(map(chr, range(0xF0000, 0xFFFFE)))
HEAVY: dict[str, tuple[str, Callable[[], bytes]]] = {
    "bad token ids": ("/v1/completions", lambda: filled('{"model":"pocket","prompt":[', "-1,", "-1]}")),
    "empty prompts": ("/v1/completions", lambda: filled('{"model":"pocket","prompt":[', "[],", "[]]}")),
    "many prompts": (
        "/v1/completions",
        lambda: filled('{"model":"pocket","n":16,"prompt":[', "[1],", "[1]]}"),
    ),
    "over-long prompt": ("/v1/completions", lambda: filled('{"model":"pocket","prompt":[', "1,", "1]}")),
    "no messages": ("/v1/chat/completions", lambda: filled('{"model":"pocket","messages":[', "{},", "{}]}")),
    "many messages": (
        "/v1/chat/completions",
        lambda: filled('{"model":"pocket","messages":[', '{"role":"user","content":""},', "{}]}"),
    ),
    "no parts": (
        "/v1/chat/completions",
        lambda: filled('{"model":"pocket","messages":[{"role":"user","content":[', "{},", "{}]}]}"),
    ),
    "unknown fields": ("/v1/chat/completions", lambda: many_fields('{"model":"pocket",', "}")),
    "unknown fields within": (
        "/v1/chat/completions",
        lambda: many_fields('{"model":"pocket","messages":[{"role":"user","content":"",', "}]}"),
    ),
    "labels": ("/v1/completions", lambda: many_fields('{"model":"pocket","prompt":"x","metadata":{', "}}")),
    "forms": (
        "/v1/chat/completions",
        lambda: many_fields(
            '{"model":"pocket","messages":[{"role":"user","content":"x"}],"response_format":{', "}}"
        ),
    ),
    "forms within": (
        "/v1/completions",
        lambda: many_fields(
            '{"model":"pocket","prompt":"x","response_format":{"type":"json_schema","json_schema":{', "}}}"
        ),
    ),
    "stop strings": (
        "/v1/completions",
        lambda: filled('{"model":"pocket","prompt":"x","stop":[', '"a",', '"a"]}'),
    ),
    "wrong type": ("/v1/chat/completions", lambda: many_fields('{"model":"pocket","messages":{', "}}")),
    "deep": ("/v1/completions", lambda: filled('{"model":"pocket","prompt":', "[", "")),
    "control tokens in a message": (
        "/v1/chat/completions",
        lambda: filled('{"model":"pocket","messages":[{"role":"user","content":"', CONTROL, '"}]}'),
    ),
    "control tokens to tokenize": ("/tokenize", lambda: filled('{"prompt":"', CONTROL, '"}')),
    "control tokens in messages to tokenize": (
        "/tokenize",
        lambda: filled('{"messages":[{"role":"user","content":"', CONTROL, '"}]}'),
    ),
    "a text to tokenize": ("/tokenize", lambda: filled('{"return_token_strs":true,"prompt":"', "a", '"}')),
    "messages to tokenize": (
        "/tokenize",
        lambda: filled('{"messages":[', '{"role":"user","content":"x"},', "{}]}"),
    ),
    "every private character": (
        "/v1/chat/completions",
        lambda: json.dumps({"model": "pocket", "messages": [{"role": "user", "content": PRIVATE}]}).encode(),
    ),
}


@pytest.mark.parametrize("what", HEAVY)
def test_megabytes_of_mistakes_cost_little_and_are_refused(server, http, what):
    path, body = HEAVY[what]
    content = body()
    before = computed_seconds(server.pid)

    response = http.post(path, content=content, headers=JSON, timeout=400)

    assert response.status_code == 400, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert len(response.content) < 2000
    assert computed_seconds(server.pid) - before < MOST_COMPUTED_SECONDS


def test_none_of_them_left_anything_in_the_engine_or_in_memory(server, http):
    answer = http.post("/v1/completions", json={"model": "pocket", "prompt": "x", "max_tokens": 2})

    assert answer.status_code == 200
    assert is_idle(server)
    assert psutil.Process(server.pid).memory_info().rss < 2**30


@pytest.mark.parametrize("depth", [*range(880, 1000, 20), 5000])
@pytest.mark.parametrize("field", ["prompt", "metadata", "unknown"])
def test_json_as_deep_as_python_reads_it_is_refused(http, depth, field):
    value = {"prompt": "x", "metadata": {}} | {field: None}
    body = json.dumps({"model": "pocket", **value}).replace("null", "[" * depth + "]" * depth)

    assert http.post("/v1/completions", content=body, headers=JSON).status_code == 400


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a\0b\0"},
        {"stop": ["\0", "\x1b[2J", "\u202e", "𝔘" * 256]},
        {"stop": ["a" * 256, "ab" * 128, "aab" * 85, "x"]},
        {"user": "\ud800"},
        {"prompt": "<|im_end|>" * 100},
        {"prompt": "\ufffd\u0000\u2028" * 30},
        {"seed": -(2**63)},
    ],
)
def test_odd_requests_that_break_no_rule_are_served(http, change):
    body = {"model": "pocket", "prompt": "x", "max_tokens": 8, "ignore_eos": True} | change

    response = http.post("/v1/completions", content=json.dumps(body), headers=JSON)

    assert response.status_code == 200, response.text
    assert 1 <= response.json()["usage"]["completion_tokens"] <= 8


@pytest.mark.parametrize("bound", ["since", "until"])
@pytest.mark.parametrize(
    "moment", ["9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "\0", "1e999", "2026-02-30"]
)
def test_no_date_is_a_mistake_of_the_server(accounted, bound, moment):
    with httpx.Client(base_url=accounted.url, headers=accounted._http.headers, timeout=60) as connection:
        assert connection.get("/v1/usage", params={bound: moment}).status_code == 400


HEAD = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
HEADS = {
    "one long header": HEAD + b"X-A: " + b"a" * 10**6 + b"\r\n\r\n",
    "many headers": HEAD + b"".join(b"X-%d: a\r\n" % number for number in range(10**5)) + b"\r\n",
    "a long path": b"GET /" + b"a" * 10**6 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long query": b"GET /v1/models?" + b"a=b&" * 10**5 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long method": b"A" * 10**6 + b" / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("what", HEADS)
def test_an_enormous_head_is_refused_and_its_connection_closed(server, what):
    host, port = server.url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        try:
            connection.sendall(HEADS[what])
            while piece := connection.recv(65536):
                received += piece
        except ConnectionError:
            pass  # it hung up before all of this was sent

    assert received == b"" or received.startswith(b"HTTP/1.1 400 ")
    assert server.get("/health/live").status_code == 200


def with_template(source: Path, target: Path, template: str) -> Path:
    """The same model with another chat template, written over the one in its file and as long."""
    from labsupport.server.tokenizer import Tokenizer

    own = Tokenizer(source).metadata("tokenizer.chat_template").encode()
    padded = template.encode() + b"{#" + b" " * (len(own) - len(template) - 4) + b"#}"
    content = source.read_bytes()
    assert content.count(own) == 1
    assert len(padded) == len(own)
    target.write_bytes(content.replace(own, padded))
    return target


def test_a_model_whose_template_never_ends_is_an_error_of_its_own_and_holds_up_nobody(gguf_file, tmp_path):
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    model = with_template(gguf_file, tmp_path / "pocket.gguf", endless)
    with labsupport.serve(str(model), slots=4, context=256, debug=True) as server:
        with HealthWatch(server.url) as watch, httpx.Client(base_url=server.url, timeout=120) as http:
            stuck = []
            body = {"model": "pocket", "messages": ASK}
            threads = [
                threading.Thread(
                    target=lambda: stuck.append(
                        httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)
                    )
                )
                for _ in range(3)
            ]
            for thread in threads:
                thread.start()
            plain = http.post("/v1/completions", json={"model": "pocket", "prompt": "x", "max_tokens": 4})
            for thread in threads:
                thread.join()

        assert plain.status_code == 200
        assert [answer.status_code for answer in stuck] == [500] * 3
        assert {answer.json()["error"]["code"] for answer in stuck} == {"template_broken"}
        assert watch.slowest < 2
        wait_until(lambda: is_idle(server), what="an idle engine")
