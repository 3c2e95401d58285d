"""An upstream that fails: the client gets an error in OpenAI's shape that says how, and nothing secret."""

from __future__ import annotations

import datetime
import email.utils
import json

import openai
import pytest
from asking import ASK, KEY, wait_until
from relaying import UPSTREAM_KEY, relay_before_script
from scripted_upstream import Asked, always, answer, chunk, completion

import labsupport

HTML = b"<html><body>Bad gateway. You sent Authorization: Bearer " + UPSTREAM_KEY.encode() + b"</body></html>"
SECRET = {
    "error": {"message": f"Wrong key: {UPSTREAM_KEY} at 10.1.2.3", "type": "x", "param": "p", "code": "c"}
}
IN_AN_HOUR = "in an hour"  # stands for the date, which is only known when the test runs
OVERLOADED = {"error": {"message": "too many", "type": "x", "param": None, "code": None}}


@pytest.fixture(scope="module")
def module_relay(tmp_path_factory):
    with relay_before_script(tmp_path_factory.mktemp("faults")) as running:
        yield running


@pytest.fixture
def relay(module_relay):
    module_relay.upstream.requests.clear()
    yield module_relay
    # whatever happened, the next request is answered
    module_relay.upstream.script = always(answer(body=completion()))
    assert module_relay.chat().status_code == 200


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """Gives an upstream one second; its upstream's key comes from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABSUPPORT_UPSTREAM_KEY", UPSTREAM_KEY)
        folder = tmp_path_factory.mktemp("impatient")
        with relay_before_script(folder, upstream_key_file=None, upstream_timeout=1.0) as running:
            yield running


def error_of(response) -> dict[str, str]:
    """The error in a response, once it is known to repeat nothing secret."""
    assert UPSTREAM_KEY not in response.text + str(response.headers)
    assert KEY not in response.text + str(response.headers)
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    ("response", "status", "code", "words"),
    [
        (answer(400, SECRET), 400, "c", "answered 400: Wrong key: [key] at 10.1.2.3"),
        (answer(400, HTML, "text/html"), 400, "upstream_refused", "answered 400"),
        (answer(413, b""), 413, "upstream_refused", "answered 413"),
        (answer(422, {"detail": "what?"}), 422, "upstream_refused", "answered 422: what?"),
        (answer(400, {"object": "error", "message": "flat", "code": 400}), 400, "upstream_refused", "flat"),
        (answer(401, SECRET), 502, "upstream_refused_key", "answered 401"),
        (answer(403, SECRET), 502, "upstream_refused_key", "answered 403"),
        (answer(402, SECRET), 502, "upstream_unexpected_status", "answered 402"),
        (answer(404, SECRET), 502, "upstream_not_found", "answered 404"),
        (answer(500, SECRET), 502, "upstream_failed", "answered 500"),
        (answer(502, HTML, "text/html"), 502, "upstream_failed", "answered 502"),
        (answer(504, HTML, "text/html"), 504, "upstream_timeout", "answered 504"),
        (answer(503, SECRET), 503, "upstream_overloaded", "answered 503"),
        (answer(302, Location="http://127.0.0.1:1/v1"), 502, "upstream_redirect", "answered 302"),
        (answer(308, Location="/v1/chat/completions"), 502, "upstream_redirect", "answered 308"),
        (answer(201, completion()), 502, "upstream_unexpected_status", "answered 201"),
        (answer(200, HTML, "text/html"), 502, "upstream_bad_answer", "text/html"),
        (answer(200, b"{}", None), 502, "upstream_bad_answer", "no content type"),
        (answer(200, {"error": {"message": "x", "code": 429}}), 429, "upstream_rate_limited", "429"),
        (answer(200, {"error": "out of memory"}), 502, "upstream_failed", "500"),
        (answer(200, {"object": "error", "message": "flat", "code": 400}), 400, "upstream_refused", "flat"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", 502, "upstream_disconnected", "before it answered"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 502, "upstream_disconnected", "before it answered"),
        (b"", 502, "upstream_disconnected", "before it answered"),
    ],
)
def test_a_failure_before_the_answer_has_its_own_status(relay, stream, response, status, code, words):
    async def script(asked: Asked) -> None:
        await asked.send(response)
        if b"\r\n\r\n" not in response:
            asked.hang_up()

    relay.upstream.script = script

    got = relay.chat(stream=stream)

    error = error_of(got)
    assert (got.status_code, error["code"]) == (status, code)
    assert words in error["message"]
    assert "10.1.2.3" not in error["message"] or status == 400
    assert len(relay.upstream.requests) == 1, "nothing was tried twice or elsewhere"


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        (None, 1, 1),
        (IN_AN_HOUR, 3590, 3600),
        ("-5", 1, 1),
        ("soon", 1, 1),
        ("9" * 400, 86400, 86400),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_time_to_retry_is_passed_on_in_seconds(relay, status, header, least, most):
    if header is IN_AN_HOUR:
        date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        header = email.utils.format_datetime(date)
    headers = {} if header is None else {"Retry_After": header}
    relay.upstream.script = always(answer(status, OVERLOADED, **headers))

    response = relay.chat()

    assert response.status_code == status
    assert least <= int(response.headers["retry-after"]) <= most


def test_the_official_client_sees_the_error_of_its_kind(relay):
    client = relay.server.openai()

    for status, kind in ((400, openai.BadRequestError), (429, openai.RateLimitError)):
        relay.upstream.script = always(answer(status, SECRET))
        with pytest.raises(kind, match=r"Wrong key: \[key\]"):
            client.chat.completions.create(model="ours", messages=ASK)
    relay.upstream.script = always(answer(401, SECRET))
    with pytest.raises(openai.InternalServerError, match="401"):
        client.chat.completions.create(model="ours", messages=ASK, stream=True)


@pytest.mark.parametrize(
    "body",
    [b"not JSON", b"[1]", b"{}", b'{"choices": []}', b'{"choices": [7]}', b'{"choices": NaN}', b"[" * 100_000,
     b'{"choices": [{"index": 0}], "usage": {"prompt_tokens": -1}}', b"\xff\xfe"],
)  # fmt: skip
def test_a_whole_answer_that_is_not_openais_is_never_passed_on(relay, body):
    relay.upstream.script = always(answer(200, body))

    response = relay.chat()

    assert response.status_code == 502
    assert error_of(response)["code"] == "upstream_bad_answer"


async def hang_up(asked: Asked) -> None:
    asked.hang_up()


async def cut_an_event(asked: Asked) -> None:
    await asked.piece(b'data: {"choices"')
    await asked.end_stream(done=False)


async def end_early(asked: Asked) -> None:
    await asked.end_stream(done=False)


async def break_the_framing(asked: Asked) -> None:
    await asked.send(b"zzz\r\n")


async def send_no_json(asked: Asked) -> None:
    await asked.piece(b"data: <html>\n\n")


async def send_no_chunk(asked: Asked) -> None:
    await asked.event({"choices": [{"index": "first"}]})


async def send_an_error(asked: Asked) -> None:
    await asked.event({"error": {"message": f"no memory for {UPSTREAM_KEY}", "code": 400}})


async def send_an_endless_line(asked: Asked) -> None:
    for _ in range(200):
        await asked.piece(b"x" * 65536)


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "not-yet-open"])
@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (hang_up, 502, "upstream_disconnected"),
        (cut_an_event, 502, "upstream_disconnected"),
        (end_early, 502, "upstream_disconnected"),
        (break_the_framing, 502, "upstream_disconnected"),
        (send_no_json, 502, "upstream_bad_answer"),
        (send_no_chunk, 502, "upstream_bad_answer"),
        (send_an_error, 400, "upstream_refused"),
        (send_an_endless_line, 502, "upstream_bad_answer"),
    ],
)
def test_a_failure_in_a_stream_is_an_event_once_the_stream_is_open(relay, is_open, failure, status, code):
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        if is_open:
            await asked.event(chunk("a"))
        await failure(asked)

    relay.upstream.script = script

    response = relay.chat(stream=True)

    assert UPSTREAM_KEY not in response.text
    if not is_open:
        assert (response.status_code, error_of(response)["code"]) == (status, code)
        return
    assert response.status_code == 200
    first, last = (json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line)
    assert first["choices"][0]["delta"]["content"] == "a"
    assert last["error"]["code"] == code


def test_a_stream_that_forgot_to_say_done_is_whole_if_its_answer_is(relay):
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(chunk("a", finish_reason="length"))
        await asked.end_stream(done=False)

    relay.upstream.script = script

    assert relay.chat(stream=True).text.endswith("data: [DONE]\n\n")


def test_a_stream_that_says_done_in_mid_answer_does_not_pass_for_a_whole_one(relay):
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(chunk("a"))
        await asked.end_stream()

    relay.upstream.script = script

    *_, last = filter(None, relay.chat(stream=True).text.splitlines())
    assert "error" in json.loads(last.removeprefix("data: "))


def test_a_line_that_breaks_after_the_last_event_is_no_failure_any_more(relay):
    async def script(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(chunk("a", finish_reason="length"))
        await asked.piece(b"data: [DONE]\n\n")
        asked.hang_up()

    relay.upstream.script = script

    assert relay.chat(stream=True).text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_silence_is_a_timeout(impatient, stream):
    async def silent(asked: Asked) -> None:
        await asked.until_client_left()

    impatient.upstream.script = silent

    response = impatient.chat(stream=stream)

    assert response.status_code == 504
    assert error_of(response)["code"] == "upstream_timeout"
    (request,) = impatient.upstream.requests[-1:]
    assert request.client_left.wait(10)
    assert request.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"


def test_silence_in_a_stream_is_a_timeout_too(impatient):
    async def silent(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(chunk("a"))
        await asked.until_client_left()

    impatient.upstream.script = silent

    *_, last = filter(None, impatient.chat(stream=True).text.splitlines())

    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_timeout"


def test_an_upstream_that_is_not_there_is_named_and_can_come_back(tmp_path):
    with relay_before_script(tmp_path) as relay:
        relay.upstream.stop_listening()

        response = relay.chat()

        assert response.status_code == 503
        assert error_of(response)["code"] == "upstream_unreachable"
        assert response.headers["retry-after"] == "1"
        wait_until(lambda: relay.http.get("/health/ready").status_code == 503, what="the news of it")

        relay.upstream.listen()

        wait_until(lambda: relay.http.get("/health/ready").status_code == 200, what="its return")
        assert relay.chat().status_code == 200


def test_a_proxy_of_the_environment_is_not_asked_for_an_upstream_on_this_computer(relay, monkeypatch):
    server = labsupport.serve("ours", engine="upstream", upstream=relay.upstream.url, timeout_seconds=60)
    for name in ("HTTP_PROXY", "ALL_PROXY"):  # from here on, so that only the server sees them
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)

    with server:
        assert server.get("/health/ready").status_code == 200
