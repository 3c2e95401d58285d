"""Before an upstream, too: processes are killed and disks refuse, and no finished request lacks its row."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from asking import ASK, BOB, wait_until
from ledger_rows import rows, said, used
from relaying import Relay, accounted_relay
from scripted_upstream import Asked, Script, always, answer, chunk, completion
from test_ledger_faults import Load, full_disk, held_by_another_program, serving

import labsupport
from labsupport.server.launch import Server
from labsupport.server.metrics import PREFIX
from labsupport.server.run import GRACE_SECONDS


def usage(tokens: int) -> dict[str, object]:
    return {
        "prompt_tokens": 7,
        "completion_tokens": tokens,
        "total_tokens": 7 + tokens,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


async def steady(asked: Asked) -> None:
    """As many chunks as tokens are wanted, or all at once."""
    wanted = min(asked.json["max_tokens"], 50)
    last = {"choices": [], "usage": usage(wanted)}
    if not asked.json.get("stream"):
        await asked.send(answer(body=completion(usage=usage(wanted))))
        return
    await asked.open_stream()
    for number in range(wanted):
        await asked.event(chunk("a", finish_reason="length" if number == wanted - 1 else None))
    await asked.event(chunk() | last)
    await asked.end_stream()


def two_chunks(go_on: threading.Event) -> Script:
    """The second one, with the end and the usage, when it may go on."""

    async def script(asked: Asked) -> None:
        await asked.open_stream()
        await asked.event(chunk("a"))
        await asked.wait_for(go_on)
        await asked.event(chunk("b", finish_reason="stop") | {"usage": usage(2)})
        await asked.end_stream()

    return script


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def relay(tmp_path) -> Iterator[Relay]:
    with accounted_relay(tmp_path) as running:
        running.upstream.script = steady
        yield running


def test_kill_9_of_the_server_loses_no_finished_request_time_and_again(tmp_path, file):
    finished = {}
    for killed_after in (10, 25):
        with accounted_relay(tmp_path) as relay:
            relay.upstream.script = steady
            with Load(relay.server) as load:
                wait_until(lambda n=killed_after, load=load: load.has_finished(n), what="some answers")
                os.kill(relay.server.pid, signal.SIGKILL)
                wait_until(lambda load=load: load.failures != [], what="the news of it")
        finished |= load.finished

        written = rows(file)

        assert {id: used(written[id]) for id in finished} == finished
        cut = [row for row in written.values() if row["finish_reason"] is None]
        assert {(row["finished_at"], *used(row)) for row in cut} <= {(None, None, None, None)}


def test_the_last_byte_waits_for_the_row(relay, file):
    go_on = threading.Event()

    relay.upstream.script = two_chunks(go_on)
    with relay.lines() as response:
        lines = (line for line in response.iter_lines() if line)
        next(lines)
        # When the row cannot be written while the last token comes
        with held_by_another_program(relay.server, file):
            go_on.set()
            assert '"finish_reason":"stop"' in next(lines)
            os.kill(relay.server.pid, signal.SIGKILL)
            # Then the client never saw the end of what the ledger does not have
            rest = []
            with contextlib.suppress(httpx.TransportError):
                rest += lines

    assert "data: [DONE]" not in rest
    assert [row["finish_reason"] for row in rows(file).values()] == [None]


@pytest.mark.parametrize("fault", [full_disk, held_by_another_program])
def test_while_the_ledger_cannot_be_written_the_upstream_is_not_asked(
    relay: Relay, file: Path, fault: Callable[[Server, Path], contextlib.AbstractContextManager[None]]
):
    client = relay.server.openai()
    go_on = threading.Event()

    relay.upstream.script = two_chunks(go_on)
    stream = client.chat.completions.create(model="ours", messages=ASK, stream=True)
    begun = next(iter(stream))

    with fault(relay.server, file):
        # The answer in progress goes out whole
        go_on.set()
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "stop"
        # What comes next is refused, and costs nothing at the upstream
        with pytest.raises(openai.InternalServerError) as refused:
            client.chat.completions.create(model="ours", messages=ASK)
        assert (refused.value.status_code, refused.value.code) == (503, "ledger_unavailable")
        assert int(refused.value.response.headers["Retry-After"]) >= 1
        assert len(relay.upstream.requests) == 1
        samples = relay.server.metrics()
        assert samples[f"{PREFIX}ledger_unavailable"] == 1
        assert samples[f"{PREFIX}ledger_write_failures_total"] >= 1
        assert samples[f"{PREFIX}ledger_lag_seconds"] > 0

    wait_until(lambda: relay.http.get("/health/ready").status_code == 200, what="readiness")
    relay.upstream.script = steady
    another = client.chat.completions.create(model="ours", messages=ASK, max_tokens=3)
    written = rows(file)
    assert written.keys() == {begun.id, another.id}
    assert used(written[begun.id]) == (7, 2, 2)
    samples = relay.server.metrics()
    assert samples[f"{PREFIX}ledger_unavailable"] == samples[f"{PREFIX}ledger_lag_seconds"] == 0


def test_kill_9_of_the_upstream_makes_errors_of_what_ran_and_keeps_the_rest(file):
    with (
        labsupport.serve("pocket", slots=8, context=512) as upstream,
        labsupport.serve(
            "ours", engine="upstream", upstream=upstream.url, upstream_model="pocket", ledger=file
        ) as server,
        Load(server) as load,
    ):
        wait_until(lambda: load.has_finished(10), what="some answers")
        os.kill(upstream.pid, signal.SIGKILL)
        wait_until(lambda: len(load.failures) >= 6, what="the news of it")

    written = rows(file)
    failed = [row for row in written.values() if row["finish_reason"] == "error"]
    assert {id: used(written[id]) for id in load.finished} == load.finished
    assert {row["error"] for row in failed} <= {"upstream_disconnected", "upstream_unreachable"}
    for row in failed:
        nothing = row["error"] == "upstream_unreachable"
        assert used(row) == ((0, 0, 0) if nothing else (None, None, None))
    assert "upstream_disconnected" in {row["error"] for row in failed}


def test_two_servers_on_one_ledger_lose_nothing_even_if_one_is_killed(tmp_path, file):
    with contextlib.ExitStack() as stack:
        relays = [
            stack.enter_context(accounted_relay(folder, ledger=file))
            for folder in (tmp_path / "one", tmp_path / "two")
            if folder.mkdir() is None
        ]
        loads = []
        for relay in relays:
            relay.upstream.script = steady
            loads.append(stack.enter_context(Load(relay.server, clients=3)))
        wait_until(lambda: all(load.has_finished(10) for load in loads), what="answers of both")
        os.kill(relays[0].server.pid, signal.SIGKILL)
        wait_until(lambda: loads[0].failures != [], what="the news of it")
        before = len(loads[1].finished)
        wait_until(lambda: loads[1].has_finished(before + 10), what="more answers of the other")

    assert loads[1].failures == []
    written = rows(file)
    finished = loads[0].finished | loads[1].finished
    assert {id: used(written[id]) for id in finished} == finished


def test_sigterm_lets_answers_finish_and_those_that_wait_for_a_turn_too(tmp_path, file):
    go_on = threading.Event()

    with accounted_relay(tmp_path, slots=1) as relay:
        relay.upstream.script = two_chunks(go_on)
        texts: list[str] = []
        threads = [
            threading.Thread(target=lambda key=key: texts.append(relay.chat(key=key, stream=True).text))
            for key in ("", BOB)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: in_hand(relay) == (1, 1), what="one with the upstream and one waiting")
        server = psutil.Process(relay.server.pid)

        server.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(relay), what="the end of listening")
        go_on.set()

        for thread in threads:
            thread.join(60)
        assert server.wait(60) == 0
        assert [text.endswith("data: [DONE]\n\n") for text in texts] == [True, True]
        assert {used(row) for row in rows(file).values()} == {(7, 2, 2)}
        assert list(tmp_path.glob("ledger-*")) == []


def test_sigterm_does_not_wait_for_ever_for_an_upstream_that_does_and_tells_the_client(relay, file):
    async def endless(asked: Asked) -> None:
        if asked.json.get("stream"):
            await asked.open_stream()
            await asked.event(chunk("a"))
        await asked.until_client_left()

    relay.upstream.script = endless
    answers: dict[bool, httpx.Response] = {}
    threads = [
        threading.Thread(target=lambda stream=stream: answers.update({stream: relay.chat(stream=stream)}))
        for stream in (True, False)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(relay.upstream.requests) == 2, what="both with the upstream")
    server = psutil.Process(relay.server.pid)

    server.send_signal(signal.SIGTERM)

    assert server.wait(GRACE_SECONDS + 60) == 0
    for thread in threads:
        thread.join(60)
    first, last = (json.loads(line[6:]) for line in answers[True].text.splitlines() if line)
    assert first["choices"][0]["delta"]["content"] == "a"
    assert last["error"]["code"] == "server_stopping"
    assert answers[False].status_code == 503
    assert answers[False].json()["error"]["code"] == "server_stopping"
    for asked in relay.upstream.requests:
        assert asked.client_left.wait(30)
    assert [(row["finish_reason"], used(row)) for row in rows(file).values()] == [
        ("abort", (None, None, None))
    ] * 2
    assert "Traceback" not in relay.server.log_tail(1000)


def in_hand(relay: Relay) -> tuple[float, float]:
    samples = relay.server.metrics()
    return samples[f"{PREFIX}num_requests_running"], samples[f"{PREFIX}num_requests_waiting"]


def refuses_connections(relay: Relay) -> bool:
    try:
        httpx.get(f"{relay.server.url}/health/live", timeout=10)
    except httpx.ConnectError:
        return True
    return False


def test_a_server_that_was_killed_is_billed_by_the_next(file):
    """What one server wrote, another goes on with: an upstream's relay and an engine share one file."""
    always_three = always(answer(body=completion(usage=usage(3))))
    with accounted_relay(file.parent) as relay:
        relay.upstream.script = always_three
        first = relay.server.openai().chat.completions.create(model="ours", messages=ASK, max_tokens=3)
        os.kill(relay.server.pid, signal.SIGKILL)
    with serving(file) as server:
        second = server.openai().chat.completions.create(model="pocket", messages=ASK, max_tokens=3)

    written = rows(file)
    assert {id: used(row) for id, row in written.items()} == {
        answered.id: said(answered.usage) for answered in (first, second)
    }
    assert {row["model"] for row in written.values()} == {"ours", "pocket"}
