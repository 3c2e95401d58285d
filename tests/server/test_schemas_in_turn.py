"""Schemas are read within their key's limits, each key's in its turn, and what is known before all others.

The process that tries them is really there, and is stopped (SIGSTOP) where a schema has to take long.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from asking import ALICE, BOB, CAROL, DAVE, ERIN, is_idle, wait_until

import labsupport
from labsupport.server.launch import Server
from labsupport.server.run import GRACE_SECONDS
from labsupport.server.structured import MOST_WAITING
from labsupport.server.verdicts import Verdict, Verdicts, name_of

KEY_FILE = f"""
{ALICE} name=alice
{BOB} name=bob
{CAROL} name=carol requests-per-minute=1
{DAVE} name=dave concurrent=6
{ERIN} name=erin concurrent=1
"""
Ask = Callable[..., httpx.Response]
numbers = count()


def quick() -> dict[str, Any]:
    """A schema that nobody has sent before, read in no time."""
    return {"enum": [f"answer {next(numbers)}"]}


def body_with(schema: Any, **options: Any) -> dict[str, Any]:
    body = {"model": "pocket", "prompt": "x", "max_tokens": 2, **options}
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    return body


def serve(folder: Path) -> contextlib.AbstractContextManager[Server]:
    key_file = folder / "keys"
    key_file.write_text(KEY_FILE)
    return labsupport.serve("pocket", slots=4, context=256, debug=True, api_key=ALICE, api_key_file=key_file)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("schemas")) as running:
        yield running


def asking(server: Server) -> Ask:
    def ask(key: str, schema: Any = None, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        body = body_with(schema, **options)
        return httpx.post(f"{server.url}/v1/completions", json=body, headers=headers, timeout=300)

    return ask


@pytest.fixture
def ask(server: Server) -> Iterator[Ask]:
    yield asking(server)
    wait_until(lambda: is_idle(server), what="an idle engine")


def sent(server: Server, key: str, content: bytes, *, length: int | None = None) -> socket.socket:
    """A connection on which a request was sent whose answer nobody has read."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=300)
    connection.sendall(
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length or len(content)}\r\n\r\n".encode()
        + content
    )
    return connection


def code_of(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("error", {}).get("code")


@contextlib.contextmanager
def no_schema_read(server: Server, ask: Ask) -> Iterator[None]:
    """For the block, the process that tries grammars says nothing."""
    assert ask(BOB, quick()).status_code == 200  # now it is there
    (trial,) = (
        child
        for child in psutil.Process(server.pid).children()
        if "labsupport.engine.grammars.trial" in child.cmdline()
    )
    trial.suspend()
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            trial.resume()


def insisting(ask: Ask, key: str, schema: Any, **options: Any) -> httpx.Response:
    """The answer to one who comes again as long as the key's places are taken."""
    while (answer := ask(key, schema, **options)).status_code == 429:
        time.sleep(0.1)
    return answer


def is_full(ask: Ask, key: str) -> bool:
    """Whether all places of a key are taken."""
    return code_of(ask(key)) == (429, "rate_limit_exceeded")


def is_answered(connection: socket.socket, *, seconds: float) -> bool:
    """Whether an answer begins within so long."""
    return bool(select.select([connection], [], [], seconds)[0])


@contextlib.contextmanager
def in_hand(server: Server, ask: Ask, key: str) -> Iterator[None]:
    """For the block, a request of a key with one place, the schema of which is being read."""
    while True:
        with sent(server, key, json.dumps(body_with(quick())).encode()) as connection:
            while not is_answered(connection, seconds=0.1):
                if is_full(ask, key):
                    yield
                    return


def test_one_keys_unread_schemas_hold_up_no_known_one_and_another_key_for_a_turn(server, ask):
    known, refused, answered = quick(), {"type": "text"}, []
    assert ask(BOB, known).status_code == 200
    assert code_of(ask(BOB, refused)) == (400, "invalid_schema")

    def send(key: str, schema: Any) -> None:
        status = insisting(ask, key, schema, max_tokens=1).status_code
        answered.append((key, status))

    with ThreadPoolExecutor(7) as pool, no_schema_read(server, ask):
        for _ in range(6):
            pool.submit(send, DAVE, quick())
        wait_until(lambda: is_full(ask, DAVE), what="six schemas of a key")
        pool.submit(send, ERIN, quick())
        wait_until(lambda: is_full(ask, ERIN), what="one of another")

        assert ask(BOB, known).status_code == 200
        assert code_of(ask(BOB, refused)) == (400, "invalid_schema")
        assert answered == []

    assert sorted(answered) == [(DAVE, 200)] * 6 + [(ERIN, 200)]
    assert answered.index((ERIN, 200)) <= 4  # it was read third, and some are answered quicker than others


def test_a_key_that_may_not_ask_now_has_no_schema_read(ask):
    assert ask(CAROL).status_code == 200

    assert code_of(ask(CAROL, {"type": "text"})) == (429, "rate_limit_exceeded")


def test_a_schema_that_is_read_is_one_of_its_keys_requests_at_once_until_its_client_goes(server, ask):
    with no_schema_read(server, ask):
        with in_hand(server, ask, ERIN):
            assert is_full(ask, ERIN)

        wait_until(lambda: not is_full(ask, ERIN), what="the place of one who left")


def test_a_key_with_too_many_unread_schemas_is_told_and_no_other(server, ask):
    with no_schema_read(server, ask), contextlib.ExitStack() as stack:

        def send(key: str) -> socket.socket:
            return stack.enter_context(sent(server, key, json.dumps(body_with(quick())).encode()))

        many = [send(ALICE) for _ in range(MOST_WAITING + 1)]
        wait_until(lambda: any(is_answered(one, seconds=0) for one in many), what="a refusal of the last")
        other = send(BOB)

        (told,) = (one for one in many if is_answered(one, seconds=0))
        assert b"too_many_schemas" in told.recv(65536)
        assert ask(ALICE).status_code == 200
        assert not is_answered(other, seconds=1)


def test_a_server_that_stops_tells_those_whose_schemas_or_bodies_it_cannot_wait_for(tmp_path):
    with serve(tmp_path) as server, ThreadPoolExecutor(6) as pool:
        ask = asking(server)
        process = psutil.Process(server.pid)
        with no_schema_read(server, ask):
            waiting = [pool.submit(insisting, ask, DAVE, quick(), stream=number < 3) for number in range(6)]
            wait_until(lambda: is_full(ask, DAVE), what="schemas that are being read")
            with sent(server, BOB, b'{"model"', length=100) as half:
                time.sleep(1)
                process.send_signal(signal.SIGTERM)

                told = b"".join(iter(lambda: half.recv(65536), b""))
            answers = [one.result() for one in waiting]
            assert process.wait(GRACE_SECONDS + 120) == 0

        assert told.startswith(b"HTTP/1.1 503")
        assert b"server_stopping" in told
        assert [code_of(answer) for answer in answers] == [(503, "server_stopping")] * 6
        assert {answer.headers["Retry-After"] for answer in answers} == {"1"}
        assert "Traceback" not in server.log_tail(1000)


def test_what_was_asked_for_least_recently_is_forgotten_first():
    verdicts = Verdicts(most=2)
    for name in (b"a", b"b"):
        verdicts.keep(name, Verdict(grammar=name.decode()))
    assert verdicts.get(b"a") == Verdict(grammar="a")
    verdicts.keep(b"c", Verdict(refusal="no"))

    assert verdicts.get(b"b") is None
    assert verdicts.get(b"a") == Verdict(grammar="a")
    assert verdicts.get(b"c") == Verdict(refusal="no")


def test_schemas_with_other_orders_or_kinds_of_numbers_are_others():
    alike = [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1.0, "b": 2}, {"a": True, "b": 2}, True]

    assert len({name_of(schema) for schema in alike}) == len(alike)
