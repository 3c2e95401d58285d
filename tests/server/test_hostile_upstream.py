"""An upstream that means harm: it costs one request, never this server, its memory, its ledger or a key."""

from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path

import psutil
import pytest
from asking import KEYS, wait_until
from ledger_rows import rows
from relaying import UPSTREAM_KEY, Relay, accounted_relay
from scripted_upstream import Asked, Script, ScriptedUpstream, always, answer, chunk, completion

MIB = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def module_relay(folder):
    with accounted_relay(folder) as running:
        yield running


@pytest.fixture
def relay(module_relay, folder) -> Relay:
    module_relay.upstream.requests.clear()
    memory = psutil.Process(module_relay.server.pid).memory_info
    before = memory().rss
    yield module_relay
    # Whatever it was, the next request is answered and accounted for, and no memory is gone
    module_relay.upstream.script = always(answer(body=completion()))
    response = module_relay.chat()
    assert response.status_code == 200
    assert rows(folder / "ledger")[response.json()["id"]]["finish_reason"] == "stop"
    assert memory().rss - before < 150 * MIB


class Flood:
    """An answer that begins with `head` and then goes on with `piece`, up to `most_bytes`."""

    def __init__(self, head: bytes, piece: bytes, *, most_bytes: int = 200 * MIB) -> None:
        self.head, self.piece, self.most_bytes = head, piece, most_bytes
        self.sent_bytes = 0

    async def __call__(self, asked: Asked) -> None:
        await asked.send(self.head)
        with contextlib.suppress(ConnectionError):
            while self.sent_bytes < self.most_bytes:
                await asked.send(self.piece)
                self.sent_bytes += len(self.piece)
        asked.hang_up()


def head(content_type: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("flood", "stream", "most_read_bytes"),
    [
        (Flood(head("text/event-stream") + b"data: ", b"x" * 65536), True, 24 * MIB),
        (Flood(head("text/event-stream"), b"data: x\n" * 8192), True, 24 * MIB),
        (Flood(head("application/json") + b'{"a": "', b"x" * 65536), False, 100 * MIB),
        (Flood(b"HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\n", b"x" * 65536), False, 24 * MIB),
        (Flood(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536), False, 24 * MIB),
        (Flood(b"", b"HTTP/1.1 103 Early Hints\r\nX: " + b"x" * 60000), False, 24 * MIB),
    ],
    ids=["line", "event", "whole", "error", "header", "interim-header"],
)
def test_an_answer_without_end_is_hung_up_on(relay, flood, stream, most_read_bytes):
    relay.upstream.script = flood

    response = relay.chat(stream=stream)

    assert response.status_code == 502
    assert flood.sent_bytes < most_read_bytes


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "br", "GZIP"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_what_is_compressed_is_never_unpacked(relay, encoding, stream):
    bomb = gzip.compress(gzip.compress(b"\0" * 32 * MIB))
    kind = "text/event-stream" if stream else "application/json"
    relay.upstream.script = always(answer(200, bomb, kind, Content_Encoding=encoding))

    response = relay.chat(stream=stream)

    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_bad_answer"
    assert "compressed" in response.json()["error"]["message"]


def test_a_compressed_error_keeps_its_status(relay):
    body = gzip.compress(json.dumps({"error": {"message": "no"}}).encode())
    relay.upstream.script = always(answer(400, body, Content_Encoding="gzip"))

    assert relay.chat().status_code == 400


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_neither_key_nor_prompt_to_another_host(relay, status):
    with ScriptedUpstream() as other:
        location = f"{other.url}/chat/completions"
        relay.upstream.script = always(answer(status, Location=location))

        response = relay.chat()

        assert response.json()["error"]["code"] == "upstream_redirect"
        assert other.url not in response.text
        assert (other.requests, other.connections, other.probes) == ([], 0, 0)


def test_a_redirected_probe_goes_nowhere_either(tmp_path):
    with ScriptedUpstream() as other, accounted_relay(tmp_path) as relay:
        healthy, relay.upstream.models = relay.upstream.models, answer(307, Location=f"{other.url}/models")
        probes = relay.upstream.probes
        wait_until(lambda: relay.upstream.probes >= probes + 3, what="some probes")
        relay.upstream.models = healthy

        assert other.probes == 0


@pytest.mark.parametrize("value", ["\N{SNOWMAN}", "é", "x" * 513, "a\tb"])
def test_a_header_that_cannot_be_passed_on_is_left_out(relay, value):
    relay.upstream.script = always(answer(body=completion(), X_Request_Id=value))

    response = relay.chat()

    assert response.status_code == 200
    assert "x-request-id" not in response.headers


def raw_event(data: bytes) -> Script:
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(chunk("a"))
        await asked.piece(b"data: " + data + b"\n\n")
        await asked.end_stream()

    return script


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices": [{"index": 0, "delta": {"content": "\xff\xfe"}}]}',
        b'{"choices": [{"index": 0, "delta": {"content": "\xc3"}}]}',
        b'{"choices": [], "x": 1e999}',
        b'{"choices": [], "x": ' + b"9" * 5000 + b"}",
        b"<html><body>Bad gateway</body></html>",
        b"\x1f\x8b\x08\x00",
    ],
    ids=["not-utf-8", "half-a-character", "infinity", "endless-number", "html", "gzip"],
)
def test_an_event_that_is_no_json_ends_the_stream_with_an_error(relay, data):
    relay.upstream.script = raw_event(data)

    first, last = (json.loads(line[6:]) for line in relay.chat(stream=True).text.splitlines() if line)

    assert first["choices"][0]["delta"]["content"] == "a"
    assert last["error"]["code"] == "upstream_bad_answer"


@pytest.mark.parametrize("depth", [50, 400, 800, 900, 950, 980, 5000, 10**6])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_nesting_is_passed_on_or_refused_and_never_a_mistake_of_ours(relay, depth, stream):
    nested = b"[" * depth + b"]" * depth
    body = json.dumps(completion()).encode()[:-1] + b', "x": ' + nested + b"}"
    relay.upstream.script = raw_event(body) if stream else always(answer(200, body))

    response = relay.chat(stream=stream)

    assert response.status_code == 200 if stream else response.status_code in (200, 502)
    assert "internal_error" not in response.text
    assert response.text.endswith(("[DONE]\n\n", "}}\n\n", "}}", "}"))


def test_an_errors_code_and_parameter_are_shown_without_the_key_and_break_nothing(relay, folder):
    for code, shown in (
        (f"x {UPSTREAM_KEY}", "x [key]"),
        ("\ud800", "\\ud800"),
        ("y" * 101, "upstream_refused"),
        (7, "upstream_refused"),
    ):
        error = {"message": f"\ud800 {UPSTREAM_KEY}", "param": f"[{UPSTREAM_KEY}]", "code": code}
        relay.upstream.script = always(answer(400, {"error": error}))

        response = relay.chat()

        assert response.status_code == 400
        assert response.json()["error"]["code"] == shown
        assert response.json()["error"]["param"] == "[[key]]"
        assert UPSTREAM_KEY not in response.text
        assert shown in {row["error"] for row in rows(folder / "ledger").values()}


def test_no_key_is_in_any_file_or_in_the_metrics(relay, folder):
    relay.upstream.script = always(answer(401, {"error": {"message": UPSTREAM_KEY}}))
    for key in (*KEYS, "sk-a-wrong-key", UPSTREAM_KEY):
        relay.chat(key=key)
        relay.http.get(
            "/v1/models", headers={"X-Api-Key": key, "Cookie": key, "Authorization": f"Basic {key}"}
        )

    written = b"".join(file.read_bytes() for file in folder.glob("ledger*"))
    seen = written + relay.server.get("/metrics").content + relay.server.log_tail(10**6).encode()
    for key in (*KEYS, "sk-a-wrong-key", UPSTREAM_KEY):
        assert key.encode() not in seen
    assert b"alice" in written
