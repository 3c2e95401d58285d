"""Whose fault a failure is: the client's is 400, a lack of room 503, and nonsense is survived."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest
from asking import is_idle, wait_until
from sabotage import Sabotage

import labsupport
from labsupport.engine.faults import exception_for
from labsupport.engine.messages import Delta
from labsupport.server.errors import from_engine
from labsupport.server.launch import Server


@pytest.fixture(scope="module")
def sabotage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sabotage]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Sabotage.install(tmp_path_factory.mktemp("sabotage"), monkeypatch)


@pytest.fixture(scope="module")
def server(sabotage: Sabotage) -> Iterator[Server]:
    with labsupport.serve("pocket", slots=2, context=2048, debug=True) as running:
        yield running


def complete(server: Server, **options) -> httpx.Response:
    body = {"model": "pocket", "prompt": "x", "max_tokens": 2, **options}
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=300)


@pytest.mark.parametrize("stream", [False, True])
def test_a_device_without_room_is_not_the_clients_fault_and_worth_another_try(server, sabotage, stream):
    sabotage.fill()
    try:
        refused = complete(server, stream=stream)
    finally:
        sabotage.make_room()

    assert refused.status_code == 503
    assert (refused.json()["error"]["code"], refused.headers["Retry-After"]) == ("no_room", "1")
    assert "room" in refused.json()["error"]["message"]
    assert complete(server).status_code == 200
    wait_until(lambda: is_idle(server), what="an idle engine")


def test_only_the_requests_own_faults_are_400_and_the_engines_are_500():
    def status(fault) -> int:
        return from_engine(exception_for(Delta(request_id="x", error="why", fault=fault))).status

    assert [status(fault) for fault in ("request", "room", "engine")] == [400, 503, 500]


def test_an_engine_that_talks_nonsense_is_replaced_and_its_requests_are_told(server, sabotage):
    before = server.get("/debug/engine").json()["pid"]
    # Of many choices, so that it still goes on when the engine goes mad
    asked = {"model": "pocket", "prompt": "x", "n": 7, "stream": True, "max_tokens": 2000, "ignore_eos": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=asked, timeout=300) as response:
        lines = response.iter_lines()
        next(lines)

        sabotage.madden()

        assert any("engine_died" in line for line in lines)
    wait_until(lambda: complete(server).status_code == 200, seconds=300, what="an answer of the next engine")
    assert server.get("/debug/engine").json()["pid"] != before
    assert "cannot follow what the engine says" in server.log_tail(1000)
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    wait_until(lambda: is_idle(server), what="an idle engine")
