"""What watchers of the engine room get: true frames, often, and never at another's expense."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import time

import pytest
from asking import KEY
from relaying import relay_before_script
from scripted_upstream import always, answer, completion
from watching import MARKER, at_work, first, frames_of

import labsupport
from labsupport.engine.client import EngineClient
from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import SamplingParams, StepReport
from labsupport.engine.snapshot import Snapshot
from labsupport.server.engine_link import EngineLink
from labsupport.server.errors import ApiError
from labsupport.server.metrics import Metrics
from labsupport.server.room import hub as hub_module
from labsupport.server.room.hub import Hub, Watcher

GENTLE_RATE = 2.0
"""Frames per second that must come even on a computer with other things to do; five are meant."""


def adds_up(frame) -> None:
    engine = frame["engine"]
    segments = engine["segments"]
    in_use = sum(segment["cells"] for segment in segments if not segment["is_kept"])
    kept = sum(segment["cells"] for segment in segments if segment["is_kept"])
    assert (in_use, kept) == (engine["used_cells"], engine["cached_cells"])
    assert in_use + kept <= engine["total_cells"]
    for one in engine["running"]:
        held = [segment["cells"] for segment in segments if one["name"] in segment["holders"]]
        assert sum(held) == one["computed_tokens"]


def test_five_frames_a_second_come_while_requests_run_and_every_one_adds_up(server):
    assert 1 / hub_module.QUIET_SECONDS > 5
    with frames_of(server) as frames, at_work(server):
        first(frames, lambda frame: frame["engine"] and frame["engine"]["running"])
        begin = time.monotonic()
        seen = list(itertools.takewhile(lambda _: time.monotonic() - begin < 5, frames))

    assert len(seen) > 5 * GENTLE_RATE
    for frame in seen:
        adds_up(frame)
    assert {frame["status"] for frame in seen} == {"ready"}
    assert any(step[0] for frame in seen for step in frame["engine"]["steps"])
    assert MARKER not in json.dumps(seen)


def test_a_prefix_that_two_requests_share_is_there_once_with_both_their_names(server):
    def shared(frame):
        names = {one["name"] for one in (frame["engine"] or {"running": ()})["running"]}
        return names, [
            segment
            for segment in (frame["engine"] or {"segments": ()})["segments"]
            if len(names & set(segment["holders"])) == 2
        ]

    with frames_of(server) as frames, at_work(server):
        frame = first(frames, lambda frame: shared(frame)[1])

    names, segments = shared(frame)
    assert segments[0]["start"] == 0
    assert segments[0]["cells"] > 50
    assert all(one["computed_tokens"] >= segments[0]["cells"] for one in frame["engine"]["running"])
    assert len(names) == 2
    adds_up(frame)


def test_latencies_and_tokens_of_the_last_minute_are_told(server):
    with frames_of(server) as frames, at_work(server):
        frame = first(
            frames, lambda frame: frame["minute"]["between_tokens"] and sum(frame["minute"]["generated"])
        )

    minute = frame["minute"]
    assert 0 < minute["between_tokens"]["median"] <= minute["between_tokens"]["p95"] < 60
    assert minute["first_token"]["count"] >= 1
    assert len(minute["generated"]) == len(minute["prompt"]) <= 60


def test_watchers_who_never_read_hold_up_nobody(server):
    host, port = server.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stalled = stack.enter_context(socket.socket())
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            stalled.connect((host, int(port)))
            stalled.sendall(f"GET /room/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        with frames_of(server) as frames, at_work(server):
            first(frames, lambda frame: frame["engine"] and frame["engine"]["running"])
            begin = time.monotonic()
            seen = sum(1 for _ in itertools.takewhile(lambda _: time.monotonic() - begin < 5, frames))

    assert seen > 5 * GENTLE_RATE


def test_only_the_newest_frame_waits_for_a_slow_watcher():
    async def watch_slowly():
        watcher = Watcher()
        for number in range(1000):
            watcher.offer(b"%d" % number, is_last=False)
        frames = watcher.frames()
        newest = await anext(frames)
        watcher.offer(b"goodbye", is_last=True)
        return newest, [frame async for frame in frames]

    assert asyncio.run(watch_slowly()) == (b"999", [b"goodbye"])


def test_watchers_who_left_are_forgotten_and_cost_nothing_more(gguf_file, monkeypatch):
    """In this process, to see the messages of the engine's, which is a real one."""
    heard = []
    hear = EngineClient._hear
    monkeypatch.setattr(
        EngineClient, "_hear", lambda client, message: (heard.append(message), hear(client, message))
    )

    async def run():
        link = EngineLink(EngineConfig(model=str(gguf_file), context_tokens=512), on_failure=lambda: None)
        link.begin()
        try:
            while not link.ready:
                await asyncio.sleep(0.05)
            client = link.require()
            metrics = Metrics("pocket", link)
            hub = Hub("pocket", link, metrics)

            async def generate(name):
                params = SamplingParams(max_tokens=60, temperature=0, ignore_eos=True)
                async for _ in client.generate([5, 6, 7], params, request_id=name):
                    pass

            watching = [hub.watch() for _ in range(20)]
            await asyncio.gather(*(anext(watcher) for watcher in watching))
            await generate("watched")
            watched = list(heard)
            for watcher in watching[:-1]:
                await watcher.aclose()
            assert metrics.listener is not None  # one still watches
            await watching[-1].aclose()
            await asyncio.sleep(0.5)  # what was on its way
            heard.clear()
            await generate("unwatched")
            return watched, metrics, vars(hub)
        finally:
            await link.end()

    watched, metrics, state = asyncio.run(run())

    assert any(isinstance(message, Snapshot) for message in watched)
    assert {type(message) for message in heard} == {StepReport}
    assert metrics.listener is None
    assert not state["_watchers"]
    assert state["_telling"] is None
    assert state["_snapshot"] is None


def test_a_room_that_failed_ends_its_streams_and_the_next_watcher_finds_it_mended(
    gguf_file, monkeypatch, caplog
):
    """In this process, to make it fail; the engine is a real one."""
    is_broken = False
    event = hub_module.event

    def fragile(frame):
        if is_broken:
            raise RuntimeError("a frame that cannot be written")
        return event(frame)

    monkeypatch.setattr(hub_module, "event", fragile)

    async def run():
        nonlocal is_broken
        link = EngineLink(EngineConfig(model=str(gguf_file), context_tokens=512), on_failure=lambda: None)
        link.begin()
        try:
            hub = Hub("pocket", link, Metrics("pocket", link))
            early = [hub.watch() for _ in range(2)]
            await asyncio.gather(*(anext(watcher) for watcher in early))
            is_broken = True
            async with asyncio.timeout(60):
                rest = [frame async for frame in early[0]]
                with pytest.raises(ApiError, match="come again"):
                    await anext(hub.watch())
            is_broken = False
            # Though one of the early ones has not noticed yet
            late = hub.watch()
            async with asyncio.timeout(60):
                while not json.loads((await anext(late)).removeprefix(b"data: "))["engine"]:
                    pass
                await early[1].aclose()
                await anext(late)
                await late.aclose()
                last = hub.watch()  # the room was empty, and is entered again
                return rest, await anext(last)
        finally:
            await link.end()

    rest, last = asyncio.run(run())

    assert len(rest) <= 1  # what was made before it failed
    assert last.startswith(b"data: ")
    assert "a frame that cannot be written" in caplog.text


def test_too_many_watchers_are_refused_by_name(server, http, monkeypatch):
    with contextlib.ExitStack() as stack:
        for _ in range(hub_module.MOST_WATCHERS):
            stack.enter_context(http.stream("GET", "/room/events"))
        refused = http.get("/room/events")

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "room_full"
    assert refused.headers["retry-after"]


@pytest.fixture(scope="module")
def mortal():
    with labsupport.serve("pocket", "q4_k_m", slots=2, context=512, debug=True) as running:
        yield running


def test_a_restart_of_the_engine_is_told_and_the_frames_go_on(mortal):
    with frames_of(mortal) as frames:
        first(frames, lambda frame: frame["engine"])
        os.kill(mortal.get("/debug/engine").json()["pid"], signal.SIGKILL)
        down = first(frames, lambda frame: frame["status"] == "restarting")
        up = first(frames, lambda frame: frame["status"] == "ready" and frame["engine"])

    assert down["engine"] is None
    assert up["restarts"] == 1


def test_a_server_that_leaves_says_so_and_does_not_wait_for_watchers(mortal):
    with frames_of(mortal) as frames:
        first(frames, lambda frame: frame["engine"])
        os.kill(mortal.pid, signal.SIGTERM)
        rest = list(frames)  # to the end, which comes without ours

    assert rest[-1]["status"] == "stopping"
    assert rest[-1]["engine"] is not None


def test_before_an_upstream_there_is_no_engine_to_see_and_what_is_known_is_told(tmp_path):
    with relay_before_script(tmp_path) as relay, frames_of(relay.server) as frames:
        relay.upstream.script = always(answer(body=completion()))
        first(frames, lambda frame: frame["minute"]["generated"])  # the second it began in is not shown
        usage = relay.chat().json()["usage"]
        frame = first(frames, lambda frame: sum(frame["minute"]["generated"]))

    assert not frame["has_engine"]
    assert frame["engine"] is None
    assert sum(frame["minute"]["generated"]) == usage["completion_tokens"]
    assert KEY not in json.dumps(frame)
