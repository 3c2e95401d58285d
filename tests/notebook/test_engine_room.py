"""The engine room in a notebook: frames come through Python, and stop when they should."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

import labsupport
from labsupport.notebook import EngineRoom, room_feed
from labsupport.notebook.engine_room import as_html, in_words
from labsupport.server.launch import Server

KEY = "a-key-for-the-room"
FRAME = {
    "model": "pocket",
    "status": "ready",
    "running": 1,
    "waiting": 1,
    "minute": {"generated_rate": 412.4},
    "engine": {
        "total_cells": 2048,
        "used_cells": 100,
        "cached_cells": 50,
        "running": [
            {"name": "1f2e3d", "phase": "decode", "slot": 0, "prompt_tokens": 90, "generated_tokens": 10}
        ],
        "waiting": [{"name": "<b>", "prompt_tokens": 1234, "generated_tokens": 0}],
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with labsupport.serve("pocket", "q4_k_m", slots=2, context=512, api_key=KEY) as running:
        yield running


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def test_frames_come_several_times_a_second_until_it_is_closed(server):
    seen = []
    room = EngineRoom(server)
    room.observe(lambda change: seen.append(change["new"]), names="frame")
    wait_until(lambda: bool(room.frame.get("engine")))
    seen.clear()
    wait_until(lambda: len(seen) >= 10, seconds=30)  # five a second are meant; the computer may be busy

    feed = room._feed
    room.close()
    wait_until(lambda: not feed.is_running)
    assert seen[-1]["status"] == "ready"


def test_a_url_wants_the_key_beside_it(server):
    refused, admitted = EngineRoom(server.url), EngineRoom(f"{server.url}/", api_key=KEY)

    wait_until(lambda: "API key" in refused.frame.get("said", ""))
    wait_until(lambda: admitted.frame.get("status") == "ready")
    for room in (refused, admitted):
        room.close()


def test_a_server_that_is_gone_is_given_up(monkeypatch):
    monkeypatch.setattr(room_feed, "GIVE_UP_SECONDS", 10.0)
    said = []
    feed = room_feed.RoomFeed("http://127.0.0.1:9", {}, said.append)

    wait_until(lambda: not feed.is_running)

    assert said[0] == {"said": room_feed.AWAY}
    assert said[-1] == {"said": room_feed.GONE}


def test_who_has_no_kernel_reads_the_last_frame_as_words_and_a_table():
    assert "1 running, 1 waiting, 412 tokens/s" in in_words(FRAME)
    assert "Of 2,048 KV cells 100 are in use and 50 kept" in in_words(FRAME)
    page = as_html(FRAME)
    for cell in ("1f2e3d", "decode", "90", "10", "&lt;b&gt;", "1,234"):
        assert f"<td>{cell}</td>" in page
    assert "run this cell" in in_words({})
    assert "<table>" not in as_html({})
    assert as_html(FRAME | {"engine": None}).count("<p>") == 1


def test_the_widget_is_loaded_only_by_who_asks_for_it():
    program = "import sys, labsupport, labsupport.notebook; print({'anywidget', 'httpx'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "set()"
