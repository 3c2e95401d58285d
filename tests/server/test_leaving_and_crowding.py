"""Clients that leave, read slowly or are too many: nobody else notices, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time

import httpx
import openai
import pytest
from asking import ABORTED, ASK, KEY, is_idle, leave_after, wait_until

LONG = {"model": "pocket", "messages": ASK, "max_tokens": 400, "temperature": 0, "ignore_eos": True}


@pytest.mark.parametrize(
    "change",
    [{"stream": True}, {}, {"n": 4}, {"n": 4, "stream": True}],
    ids=["stream", "whole", "n", "n-stream"],
)
def test_a_client_that_leaves_frees_its_slots_long_before_its_answer_would_have_ended(server, engine, change):
    choices = change.get("n", 1)
    before = server.metrics()[ABORTED]
    begin = time.monotonic()
    httpx.post(f"{server.url}/v1/chat/completions", json=LONG | change, timeout=120)
    full_seconds = time.monotonic() - begin

    leave_after(server, LONG | change, until=lambda: engine()["running"] == choices)

    idle_seconds = wait_until(lambda: is_idle(server), what="an idle engine")
    assert idle_seconds < full_seconds / 2
    wait_until(lambda: server.metrics()[ABORTED] == before + choices, what="the count of aborts")


def test_clients_that_leave_at_any_moment_leave_nothing_behind(server):
    threads = [
        threading.Thread(
            target=leave_after,
            args=(server, LONG | {"stream": bool(number % 2), "n": 1 + number % 3}),
            kwargs={"seconds": 0.02 * number},
        )
        for number in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    wait_until(lambda: is_idle(server), seconds=30, what="an idle engine")


def test_closing_the_openai_clients_stream_counts_as_an_abort(server, client):
    before = server.metrics()[ABORTED]
    stream = client.chat.completions.create(
        model="pocket", messages=ASK, max_tokens=400, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()

    wait_until(lambda: server.metrics()[ABORTED] == before + 1, what="the count of aborts")


def test_a_slow_reader_holds_up_nobody_and_still_gets_everything(server, client):
    body = LONG | {"stream": True, "logprobs": True, "top_logprobs": 20}  # more than any socket buffers
    content = json.dumps(body).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(60)
        slow.connect((host, int(port)))
        slow.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\n"
            + f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )

        # While it reads nothing at all, others are served, and its own work in the engine ends
        for _ in range(3):
            assert client.chat.completions.create(model="pocket", messages=ASK, max_tokens=4).choices
        wait_until(lambda: is_idle(server), seconds=60, what="an idle engine")

        received = b"".join(iter(lambda: slow.recv(65536), b""))

    events = [line for line in received.decode("utf-8").split("\n") if line.startswith("data: ")]
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in events[:-1]]
    entries = [
        entry for chunk in chunks for entry in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert len(entries) == 400
    assert len(received) > 400_000


def test_thirty_two_at_once_on_four_places_are_answered_or_refused_with_a_time_to_retry(small_server):
    async def ask(session):
        body = {"model": "pocket", "messages": ASK, "max_tokens": 40, "ignore_eos": True}
        return await session.post("/v1/chat/completions", json=body)

    async def everybody():
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=small_server.url, headers=headers, timeout=120) as session:
            return await asyncio.gather(*(ask(session) for _ in range(32)))

    def refused():
        return small_server.metrics().get('labsupport:http_responses_total{status="429"}', 0)

    before = refused()
    responses = asyncio.run(everybody())

    statuses = [response.status_code for response in responses]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 4
    for response in responses:
        if response.status_code == 429:
            assert int(response.headers["Retry-After"]) >= 1
            assert response.json()["error"]["code"] == "queue_full"
        else:
            assert response.json()["usage"]["completion_tokens"] == 40
    wait_until(lambda: is_idle(small_server), what="an idle engine")
    assert refused() - before == statuses.count(429)


def test_the_client_that_was_refused_succeeds_when_it_comes_again(small_server):
    patient = small_server.openai(max_retries=8)
    with pytest.raises(openai.BadRequestError, match="the limit here is 4"):
        patient.chat.completions.create(model="pocket", messages=ASK, n=5)
    assert patient.chat.completions.create(model="pocket", messages=ASK, max_tokens=2).choices


def test_one_request_of_many_waits_its_turn_and_ends(server, client):
    answer = client.completions.create(
        model="pocket", prompt=["x"] * 3, n=10, max_tokens=3, extra_body={"ignore_eos": True}
    )

    assert len(answer.choices) == 30  # on sixteen slots
    assert answer.usage.completion_tokens == 90
