"""Real processes are really killed: the engine, the server, and whoever started the server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from asking import ASK, is_idle, wait_until

import labsupport
from labsupport.server.launch import Server

ENDLESS = {"model": "pocket", "messages": ASK, "max_tokens": 450, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def model_file(gguf_file, tmp_path) -> Path:
    """A model of one's own, to take away from an engine that starts again."""
    return Path(shutil.copy(gguf_file, tmp_path / "pocket.gguf"))


@pytest.fixture
def fragile(model_file) -> Iterator[Server]:
    with labsupport.serve(str(model_file), slots=4, context=512, debug=True) as server:
        yield server


def engine_pid(server: Server) -> int:
    return server.get("/debug/engine").json()["pid"]


def is_ready(server: Server) -> bool:
    return server.get("/health/ready").status_code == 200


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_killed_engine_fails_its_requests_clearly_and_comes_back(fragile, model_file):
    client, outcomes = fragile.openai(), {}

    def ask(name, **options):
        try:
            answer = client.chat.completions.create(**ENDLESS, **options)
            outcomes[name] = list(answer) if options.get("stream") else answer
        except openai.APIError as error:
            outcomes[name] = error

    threads = [
        threading.Thread(target=ask, args=("whole",)),
        threading.Thread(target=ask, args=("stream",), kwargs={"stream": True}),
        threading.Thread(target=ask, args=("two",), kwargs={"n": 2}),
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: fragile.get("/debug/engine").json()["running"] == 4, what="four sequences running")
    before = engine_pid(fragile)

    # When the engine is killed in the middle of it all, and kept from coming back
    hidden = model_file.rename(model_file.with_suffix(".hidden"))
    os.kill(before, signal.SIGKILL)

    # Then it is not ready, though alive, and says so with a time to retry
    wait_until(lambda: not is_ready(fragile), what="readiness to go")
    assert fragile.get("/health/live").status_code == 200
    refused = httpx.post(f"{fragile.url}/v1/completions", json={"model": "pocket", "prompt": "x"})
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["error"]["type"] == "service_unavailable_error"
    # and every request ended with an error that tells what happened
    for thread in threads:
        thread.join(60)
    assert isinstance(outcomes["whole"], openai.InternalServerError)
    assert outcomes["whole"].status_code == outcomes["two"].status_code == 503
    assert outcomes["whole"].code == "engine_died"
    assert isinstance(outcomes["stream"], openai.APIError)  # an event in the open stream
    assert all("SIGKILL" in error.message for error in outcomes.values())

    # And once it can, it is ready again, in another process, with nothing left of the old one's requests
    hidden.rename(model_file)
    wait_until(lambda: is_ready(fragile), seconds=120, what="readiness")
    assert engine_pid(fragile) != before
    assert is_idle(fragile)
    assert client.chat.completions.create(model="pocket", messages=ASK, max_tokens=3).choices
    counts = fragile.metrics()
    assert counts["labsupport:engine_restarts_total"] == 1
    assert counts['labsupport:request_success_total{finished_reason="error"}'] == 4


def test_a_killed_server_leaves_no_orphan(fragile):
    engine = engine_pid(fragile)

    os.kill(fragile.pid, signal.SIGKILL)

    wait_until(lambda: is_gone(engine), what="the engine's end")


def test_sigterm_lets_running_answers_finish_and_ends_with_status_0(fragile):
    engine, server = engine_pid(fragile), psutil.Process(fragile.pid)
    stream = fragile.openai().chat.completions.create(
        model="pocket", messages=ASK, max_tokens=60, stream=True, extra_body={"ignore_eos": True}
    )
    chunks = iter(stream)
    next(chunks)

    server.send_signal(signal.SIGTERM)

    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"
    assert server.wait(60) == 0
    wait_until(lambda: is_gone(engine), what="the engine's end")
    with pytest.raises(httpx.ConnectError):
        fragile.get("/health/live")


def test_the_server_dies_with_the_program_that_started_it():
    program = (
        "import labsupport, time\n"
        "with labsupport.serve('pocket', slots=2, context=512, debug=True) as server:\n"
        "    print(server.pid, server.get('/debug/engine').json()['pid'], flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as notebook:
        pids = [int(pid) for pid in notebook.stdout.readline().split()]
        assert len(pids) == 2

        notebook.kill()

    for pid in pids:
        wait_until(lambda pid=pid: is_gone(pid), what=f"the end of process {pid}")


def test_health_answers_at_once_while_the_engine_is_busy(fragile):
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            fragile.openai().completions.create(model="pocket", prompt="word " * 80, max_tokens=64, n=4)

    thread = threading.Thread(target=keep_busy)
    thread.start()
    try:
        for _ in range(20):
            begin = time.monotonic()
            assert is_ready(fragile)
            assert time.monotonic() - begin < 10
    finally:
        stop.set()
        thread.join()
