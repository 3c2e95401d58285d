"""Clients that hold a connection by doing nothing: half a head, an answer that nobody reads.

The server is the real web server with our protocol, in this process and with less patience, so that nobody
waits for the minute that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from http.client import HTTPConnection, HTTPResponse

import psutil
import pytest
import uvicorn
from asking import ASK, is_idle, wait_until
from fastapi import FastAPI, Request, Response
from pace import HealthWatch

from labsupport.server.http_protocol import HttpProtocol
from labsupport.server.limits import Admission
from labsupport.server.streaming import respond


class Impatient(HttpProtocol):
    header_seconds = 1.0
    stall_seconds = 1.0


LEAST_RATE = 2**24

ENDLESS_EVENT = b"data: " + b"x" * 10_000 + b"\n\n"


class Service:
    """A stream without end, and a short answer; `places` are held as the server's own requests hold them."""

    def __init__(self, protocol: type[HttpProtocol] = Impatient) -> None:
        self.protocol = protocol
        self.places = Admission(4)
        self.app = FastAPI()
        self.app.add_api_route("/endless", self.endless)
        self.app.add_api_route("/large", self.large)
        self.app.add_api_route("/short", self.short)
        self.listener = socket.create_server(("127.0.0.1", 0))  # as `server.run` makes it
        self.address = self.listener.getsockname()

    async def endless(self, request: Request) -> Response:
        return await respond(request.receive, self._events())

    async def _events(self) -> AsyncGenerator[bytes, None]:
        with self.places.admit(1):
            while True:
                yield ENDLESS_EVENT
                await asyncio.sleep(0)

    async def large(self, request: Request, kibibytes: int) -> Response:
        async def event() -> AsyncGenerator[bytes, None]:
            with self.places.admit(1):
                yield bytes(kibibytes * 2**10)

        return await respond(request.receive, event())

    async def short(self) -> str:
        return "here"

    @property
    def connections(self) -> set:
        """Those that are open on the server's side."""
        return self.server.server_state.connections

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        config = uvicorn.Config(self.app, http=self.protocol, log_config=None)
        self.server = server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([self.listener],))
        thread.start()
        try:
            wait_until(lambda: server.started, what="the web server's start")
            yield
        finally:
            server.should_exit = server.force_exit = True
            thread.join(60)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service()
    with service.running():
        yield service


@pytest.fixture
def hasty_service() -> Iterator[Service]:
    """Readers have to be fast there."""
    service = Service(Impatient.with_least_rate(LEAST_RATE))
    with service.running():
        yield service


def connected(service: Service) -> socket.socket:
    return socket.create_connection(service.address, timeout=120)


def answer_of(connection: socket.socket) -> tuple[int, dict]:
    response = HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


def drip(connection: socket.socket, stop: threading.Event, drop: bytes = b"X-A: b\r\n") -> None:
    with contextlib.suppress(OSError):
        while not stop.wait(0.2):
            connection.sendall(drop)


def test_no_token_waits_until_the_one_before_is_acknowledged(service):
    with connected(service):
        wait_until(lambda: service.connections, what="the connection on the server's side")
        sockets = [protocol.transport.get_extra_info("socket") for protocol in service.connections]
        assert all(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in sockets)


def test_half_a_head_is_answered_408_when_its_time_is_over(service):
    with connected(service) as connection:
        connection.sendall(b"GET /short HTTP/1.1\r\nHost: x\r\n")

        status, body = answer_of(connection)

        assert status == 408
        assert body["error"]["code"] == "head_too_slow"
        assert connection.recv(1) == b""


def test_the_rest_of_a_body_whose_request_was_refused_does_not_hold_the_connection(service):
    for later in (b"x", b""):  # one byte and silence; drop by drop
        stop = threading.Event()
        with connected(service) as connection:
            connection.sendall(b"POST /short HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
            response = HTTPResponse(connection)
            response.begin()
            assert response.status == 405
            response.read()
            connection.sendall(later)
            dripping = threading.Thread(target=drip, args=(connection, stop, b"" if later else b"x"))
            dripping.start()

            connection.settimeout(60)
            assert connection.recv(1) == b""

            stop.set()
            dripping.join()
    wait_until(lambda: not service.connections, what="the end of the connections")


def test_a_body_that_is_complete_after_its_answer_leaves_the_connection_as_it_was(service):
    with connected(service) as connection:
        for _ in range(2):
            connection.sendall(b"POST /short HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
            response = HTTPResponse(connection)
            response.begin()
            assert response.status == 405
            response.read()
            connection.sendall(b"{}")


def test_a_head_that_comes_drop_by_drop_gets_no_more_time(service):
    stop = threading.Event()
    with connected(service) as connection:
        connection.sendall(b"GET /short HTTP/1.1\r\nHost: x\r\n")
        dripping = threading.Thread(target=drip, args=(connection, stop))
        dripping.start()

        status, _ = answer_of(connection)

        stop.set()
        dripping.join()
        assert status == 408


def test_a_connection_on_which_nothing_comes_is_closed_without_a_word(service):
    with connected(service) as connection:
        assert connection.recv(1) == b""


def test_half_a_second_head_after_a_whole_request_has_its_time_too(service):
    with connected(service) as connection:
        connection.sendall(b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_of(connection) == (200, "here")
        connection.sendall(b"GET /short HTTP/1.1\r\nHost")

        assert answer_of(connection)[0] == 408


def test_a_pipelined_request_and_an_ordinary_one_are_answered(service):
    request = b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(service) as connection:
        connection.sendall(request * 2)
        time.sleep(1.5)  # longer than a head may take: these came whole
        received = b""
        while received.count(b'"here"') < 2:
            received += connection.recv(65536)
        assert received.count(b"HTTP/1.1 200 OK") == 2


def test_readers_that_never_read_lose_their_connection_and_their_places_come_back(service):
    stuck = [connected(service) for _ in range(4)]
    for connection in stuck:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: service.places.taken == 4, what="four streams")

    wait_until(lambda: service.places.taken == 0, what="the places of those who read nothing")

    for connection in stuck:
        with connection, contextlib.suppress(ConnectionError):
            while connection.recv(2**20):
                pass


def test_a_reader_that_is_only_slow_keeps_its_stream(service):
    with connected(service) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(12):
            time.sleep(0.4)  # together four times the patience with one who reads nothing
            assert len(connection.recv(2**20)) > 0
        assert service.places.taken == 1
    wait_until(lambda: service.places.taken == 0, what="the place of one who left")


def test_a_reader_that_takes_a_little_now_and_then_loses_its_connection_and_its_place(hasty_service):
    with connected(hasty_service) as connection:
        connection.sendall(b"GET /large?kibibytes=65536 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: hasty_service.places.taken == 1, what="the stream")
        begin, taken = time.monotonic(), 0
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(2**19):
                taken += len(piece)
                time.sleep(0.25)  # a quarter of the least rate and less: it would take half a minute and more

    assert taken < LEAST_RATE * (time.monotonic() - begin)
    assert taken < 64 * 2**20
    wait_until(lambda: hasty_service.places.taken == 0, what="the place of one who read too slowly")


def test_what_is_left_of_an_answer_keeps_no_connection_open_for_ever(service):
    (listener,) = service.server.servers[0].sockets
    held_before = listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that the kernel takes only a part
    try:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(service.address)
            connection.sendall(b"GET /large?kibibytes=48 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            wait_until(lambda: len(service.connections) == 1, what="the connection")
            assert connection.recv(1)
            wait_until(lambda: service.places.taken == 0, what="the end of the work")

            wait_until(lambda: not service.connections, what="the end of the connection")
    finally:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, held_before)


def test_readers_that_read_nothing_hold_up_nobody_and_cost_little_memory(server, engine, http):
    body = {"model": "pocket", "messages": ASK, "max_tokens": 200, "stream": True}
    content = json.dumps(body | {"ignore_eos": True, "logprobs": True, "top_logprobs": 20}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    http.post("/v1/completions", json={"model": "pocket", "prompt": "x", "max_tokens": 2})
    before = psutil.Process(server.pid).memory_info().rss
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            slow = stack.enter_context(socket.socket())
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((host, int(port)))
            slow.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                + f"Content-Length: {len(content)}\r\n\r\n".encode()
                + content
            )
        wait_until(lambda: engine()["running"] == 8, seconds=300, what="their work in the engine")
        with HealthWatch(server.url) as watch:
            asked = {"model": "pocket", "prompt": "x", "max_tokens": 2}
            answer = http.post("/v1/completions", json=asked, timeout=300)
            wait_until(lambda: is_idle(server), seconds=300, what="the end of their work in the engine")

        assert answer.status_code == 200
        assert watch.slowest < 2
        # What waits for them: 200 tokens each, with 20 alternatives, of some hundred bytes each
        assert psutil.Process(server.pid).memory_info().rss - before < 8 * 200 * 20 * 1000
    wait_until(lambda: is_idle(server), what="an idle engine")


def test_a_connection_that_was_idle_for_as_long_as_clients_keep_theirs_can_be_used_again(server):
    connection = HTTPConnection(*server.url.removeprefix("http://").split(":"), timeout=60)
    for idle_seconds in (0, 6):
        time.sleep(idle_seconds)
        connection.request("GET", "/health/live")
        response = connection.getresponse()
        assert (response.status, response.read() != b"") == (200, True)
    connection.close()
