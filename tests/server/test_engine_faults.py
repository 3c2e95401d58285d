"""An engine that crashes as native code does, at bad moments too: who asked is told, and it comes back."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import openai
import psutil
import pytest
from asking import ASK, is_idle, wait_until
from pace import slowness

import labsupport
from labsupport.server.launch import Server


@pytest.fixture(scope="module")
def crashing() -> Iterator[Server]:
    with labsupport.serve("pocket", slots=4, context=512, debug=True) as server:
        yield server


def engine_pid(server: Server) -> int:
    return server.get("/debug/engine").json()["pid"]


def is_ready(server: Server) -> bool:
    return server.get("/health/ready").status_code == 200


def has_answered(server: Server) -> bool:
    """Whether a request is answered; if not, it is asked to come again."""
    answer = httpx.post(
        f"{server.url}/v1/completions", json={"model": "pocket", "prompt": "x", "max_tokens": 2}, timeout=300
    )
    if answer.status_code == 200:
        return True
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] in {"engine_died", "engine_restarting", "engine_unavailable"}
    assert int(answer.headers["Retry-After"]) >= 1
    return False


@pytest.mark.parametrize("crash", [signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_is_told_within_seconds_and_mended_without_help(crashing, crash):
    told: dict[bool, tuple[float, openai.APIError]] = {}

    def ask(*, stream: bool) -> None:
        try:
            answer = crashing.openai(timeout=400).chat.completions.create(
                model="pocket", messages=ASK, max_tokens=450, stream=stream, extra_body={"ignore_eos": True}
            )
            list(answer)
        except openai.APIError as error:
            told[stream] = time.monotonic(), error

    threads = [threading.Thread(target=ask, kwargs={"stream": stream}) for stream in (False, True)]
    for thread in threads:
        thread.start()
    wait_until(lambda: crashing.get("/debug/engine").json()["running"] == 2, what="two running requests")
    pid, pace = engine_pid(crashing), slowness()

    os.kill(pid, crash)
    begin = time.monotonic()
    for thread in threads:
        thread.join(400)

    pace = max(pace, slowness())
    assert set(told) == {False, True}
    assert all((moment - begin) / pace < 10 for moment, _ in told.values())
    assert all(crash.name in error.message for _, error in told.values())
    assert told[False][1].code == "engine_died"
    wait_until(lambda: has_answered(crashing), seconds=300, what="an answer of the next engine")
    assert engine_pid(crashing) != pid
    assert is_idle(crashing)


def test_an_engine_that_dies_while_no_file_can_be_opened_comes_back_when_one_can(crashing):
    own = psutil.Process(crashing.pid)
    soft, hard = resource.prlimit(own.pid, resource.RLIMIT_NOFILE)
    pid = engine_pid(crashing)

    resource.prlimit(
        own.pid, resource.RLIMIT_NOFILE, (own.num_fds() - 4, hard)
    )  # as a crowd of callers would
    try:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(pid), what="the engine's end")
        time.sleep(2)
    finally:
        resource.prlimit(own.pid, resource.RLIMIT_NOFILE, (soft, hard))

    wait_until(lambda: is_ready(crashing), seconds=300, what="readiness")
    assert has_answered(crashing)


def test_a_server_that_is_killed_while_its_engine_loads_leaves_no_orphan():
    words = [sys.executable, "-m", "labsupport", "serve", "--port", "0", "--context", "256"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        own = psutil.Process(server.pid)
        wait_until(lambda: own.children() != [], seconds=300, what="the engine process")
        engine = own.children()[0]

        server.kill()

    wait_until(
        lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE,
        seconds=120,
        what="the engine's end",
    )
