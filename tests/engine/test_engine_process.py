"""The engine in its own process, through its client: what is lost when it dies, and what never is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import msgspec
import psutil
import pytest
from tiny_gguf import RECITED

from labsupport.engine import client as client_module
from labsupport.engine import offline
from labsupport.engine import process as process_module
from labsupport.engine.client import EngineClient, EngineDied, EngineFailed, RequestRefused
from labsupport.engine.config import EngineConfig
from labsupport.engine.inbox import Inbox
from labsupport.engine.messages import Abort, Delta, SamplingParams, Submit
from labsupport.engine.plan import RunnerLimits

GREEDY = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)
LIMITS = RunnerLimits(
    max_slots=1, cells=512, context_tokens=512, step_tokens=512, vocabulary_size=258, grammars=True
)
PATIENCE_SECONDS = 30.0
"""Generous: what is tested is that it happens, on a machine that may be busy."""
ENDLESS = SamplingParams(max_tokens=480, temperature=0, ignore_eos=True)


def with_engine(config: EngineConfig, use: Callable[[EngineClient], Awaitable[None]]) -> None:
    """Start an engine, use it, check that its books are right and empty, and close it."""

    async def main() -> None:
        async with await EngineClient.start(config) as client:
            await use(client)
            integrity = await until_empty(client)
            assert integrity.violations == ()

    asyncio.run(main())


async def deltas(client: EngineClient, prompt: bytes, params=GREEDY, *, name: str = "request") -> list[Delta]:
    return [delta async for delta in client.generate(list(prompt), params, request_id=name)]


async def until(condition: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


async def until_empty(client: EngineClient, *, seconds: float = PATIENCE_SECONDS):
    """Ask until nothing runs, waits or holds a cell."""
    deadline = time.monotonic() + seconds
    while True:
        integrity = await client.inspect()
        if not (integrity.running or integrity.waiting or integrity.used_cells):
            return integrity
        assert time.monotonic() < deadline, integrity
        await asyncio.sleep(0.01)


def text_of(all_deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in all_deltas)


def tokens_of(all_deltas: list[Delta]) -> tuple[int, ...]:
    return tuple(token for delta in all_deltas for token in delta.tokens)


def test_a_stream_put_together_is_what_the_offline_engine_says(tiny_model):
    async def use(client: EngineClient) -> None:
        stream = await deltas(client, b"hello")
        assert text_of(stream) == expected.text
        assert tokens_of(stream) == expected.tokens
        assert [delta.finish_reason for delta in stream] == [None] * (len(stream) - 1) + ["length"]

    (expected,) = offline.generate(tiny_model, [list(b"hello")], GREEDY)
    with_engine(EngineConfig(threads=1, model=str(tiny_model)), use)


def test_concurrent_requests_never_mix_and_their_counts_add_up(reciting_model):
    # Given a model that goes on from the last letter, and prompts that end in different letters
    async def use(client: EngineClient) -> None:
        circle = RECITED.encode()
        streams = await asyncio.gather(
            *(
                deltas(client, b"?" * index + bytes([circle[index % 10]]), name=str(index))
                for index in range(40)
            )
        )
        for index, stream in enumerate(streams):
            rounds = circle[index % 10 + 1 :] + circle * 5
            assert text_of(stream) == rounds[:40].decode(errors="replace")
            assert {delta.request_id for delta in stream} == {str(index)}

    with_engine(EngineConfig(threads=1, model=str(reciting_model), slots=8), use)


def test_a_killed_engine_fails_its_requests_and_comes_back_by_itself(tiny_model):
    async def use(client: EngineClient) -> None:
        # Given requests that run and that wait
        first_pid = client.info.pid
        tasks = [asyncio.create_task(deltas(client, b"x", ENDLESS, name=str(index))) for index in range(20)]
        await until(lambda: client.last_report is not None and client.last_report.waiting > 0)
        # When the process is killed
        os.kill(first_pid, signal.SIGKILL)
        outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_SECONDS)
        # Then every one of them is told so
        assert {type(outcome) for outcome in outcomes} == {EngineDied}
        assert "SIGKILL" in str(outcomes[0])
        assert not client.ready
        with pytest.raises(EngineDied):
            await deltas(client, b"too early")
        # And the engine is back without help
        await until(lambda: client.ready)
        assert (client.restarts, client.info.pid == first_pid) == (1, False)
        assert len(tokens_of(await deltas(client, b"y"))) == 40

    with_engine(EngineConfig(threads=1, model=str(tiny_model), slots=4), use)


def test_who_speaks_to_an_engine_that_has_just_died_waits_for_nobody(tiny_model):
    async def use(client: EngineClient) -> None:
        # Given an engine whose death nobody has noticed yet: nothing is awaited here
        os.kill(client.info.pid, signal.SIGKILL)
        while not client._process.has_ended:
            time.sleep(0.01)
        time.sleep(0.2)  # until the socket knows that its other end is gone
        # When it is spoken to, by a thread that can be left behind where it waits for ever
        process = client._process
        speaking = threading.Thread(target=process.send, args=(Abort(request_id="x"),), daemon=True)
        speaking.start()
        speaking.join(10)
        # Then that is over at once, and the engine comes back
        assert not speaking.is_alive()
        await until(lambda: client.restarts == 1 and client.ready)

    with_engine(EngineConfig(threads=1, model=str(tiny_model)), use)


def test_a_native_abort_is_a_clear_error_and_a_restart(tiny_model):
    async def use(client: EngineClient) -> None:
        task = asyncio.create_task(deltas(client, b"x", ENDLESS))
        await until(lambda: client.last_report is not None and client.last_report.running > 0)
        os.kill(client.info.pid, signal.SIGABRT)
        with pytest.raises(EngineDied, match="SIGABRT"):
            await task
        await until(lambda: client.ready)

    with_engine(EngineConfig(threads=1, model=str(tiny_model)), use)


def test_an_engine_whose_model_vanished_says_so_until_it_is_back(tiny_model, tmp_path):
    model = tmp_path / "model.gguf"
    model.write_bytes(tiny_model.read_bytes())

    async def use(client: EngineClient) -> None:
        model.rename(tmp_path / "elsewhere.gguf")
        os.kill(client.info.pid, signal.SIGKILL)
        await until(lambda: "no model file" in str(client._failure))
        with pytest.raises(EngineDied, match="does not start again"):
            await deltas(client, b"x")
        assert not client.ready
        (tmp_path / "elsewhere.gguf").rename(model)
        await until(lambda: client.ready)
        assert len(tokens_of(await deltas(client, b"y"))) == 40

    with_engine(EngineConfig(threads=1, model=str(model)), use)


@pytest.mark.parametrize("prompt", [b"short", b"long " * 90])
def test_leaving_a_stream_frees_what_it_held(tiny_model, prompt):
    async def use(client: EngineClient) -> None:
        # Given requests in decode, in prefill, and in the queue
        streams = [
            client.generate(list(prompt), SamplingParams(max_tokens=40, temperature=0), request_id=str(index))
            for index in range(12)
        ]
        async with aclosing(streams[0]) as first:
            async for _ in first:
                break
        tasks = [asyncio.create_task(anext(stream)) for stream in streams[1:]]
        await until(lambda: client.last_report is not None and client.last_report.waiting > 0)
        # When they are cancelled
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in streams:
            await stream.aclose()
        # Then nothing is held (and `with_engine` looks at the books)
        await until_empty(client)
        assert client._requests == {}

    with_engine(EngineConfig(threads=1, model=str(tiny_model), slots=4, step_tokens=16), use)


def test_three_hundred_random_cancels_leave_nothing_behind(tiny_model):
    async def use(client: EngineClient) -> None:
        async def leave_after(index: int) -> None:
            stream = client.generate([65 + index % 9] * (1 + index % 200), GREEDY, request_id=str(index))
            async with aclosing(stream):
                for _ in range(index % 7):
                    await anext(stream)

        await asyncio.gather(*(leave_after(index) for index in range(100)))
        engine = psutil.Process(client.info.pid)
        before = engine.memory_info().rss
        await asyncio.gather(*(leave_after(index) for index in range(100, 300)))
        await until_empty(client)
        assert engine.memory_info().rss - before < 8 * 2**20

    # With small steps the first hundred touch all memory that a step can use.
    with_engine(EngineConfig(threads=1, model=str(tiny_model), step_tokens=128), use)


@pytest.mark.parametrize(
    ("tokens", "params", "complaint"),
    [
        ([], GREEDY, "no tokens"),
        ([258], GREEDY, "token 258"),
        ([-1], GREEDY, "token -1"),
        ([2**70], GREEDY, "malformed"),
        (["a"], GREEDY, "malformed"),
        ([65] * 512, GREEDY, "prompt has 512 tokens"),
        ([65] * 480, GREEDY, "together at most 512"),
        ([65], SamplingParams(max_tokens=-1), "max_tokens is -1"),
        ([65], SamplingParams(max_tokens=10**9), "together at most 512"),
        ([65], SamplingParams(max_tokens=1, temperature=-0.1), "temperature is -0.1"),
        ([65], SamplingParams(max_tokens=1, temperature=float("nan")), "finite"),
        ([65], SamplingParams(max_tokens=1, top_p=0), "top_p is 0"),
        ([65], SamplingParams(max_tokens=1, stop=("",)), "stop is"),
        ([65], SamplingParams(max_tokens="many"), "malformed"),  # type: ignore[arg-type]
    ],
)
def test_an_impossible_request_is_refused_with_what_was_given(tokens, params, complaint):
    # Given what the engine says of itself (refusing takes no process)
    with pytest.raises(RequestRefused, match=complaint):
        client_module.refuse_impossible(tokens, params, LIMITS)


def test_a_poisoned_request_that_reaches_the_engine_harms_nobody_else(tiny_model):
    async def use(client: EngineClient) -> None:
        expected = text_of(await deltas(client, b"neighbour"))
        neighbour = asyncio.create_task(deltas(client, b"neighbour"))
        # When requests come past the client's own check, and bytes that are no message at all
        poison = [
            Submit(request_id="vocabulary", tokens=(10**6,), params=GREEDY),
            Submit(request_id="length", tokens=(65,) * 5000, params=GREEDY),
            Submit(request_id="empty", tokens=(), params=GREEDY),
            Submit(request_id="for ever", tokens=(65,), params=SamplingParams(max_tokens=2**40)),
        ]
        inboxes = {each.request_id: Inbox() for each in poison}
        client._requests |= inboxes
        for each in poison:
            client._send(each)
        client._process._socket.send(b"\xc1 no message")
        # Then each is answered, and the neighbour never notices
        for name, inbox in inboxes.items():
            delta = await asyncio.wait_for(inbox.get(), PATIENCE_SECONDS)
            assert delta.finish_reason == "error", name
            assert delta.error
            del client._requests[name]
        assert text_of(await neighbour) == expected
        assert client.restarts == 0

    with_engine(EngineConfig(threads=1, model=str(tiny_model)), use)


def test_a_name_in_use_is_refused_and_the_first_goes_on(tiny_model):
    async def use(client: EngineClient) -> None:
        first = asyncio.create_task(deltas(client, b"x", name="same"))
        await asyncio.sleep(0)
        with pytest.raises(RequestRefused, match="already running"):
            await deltas(client, b"y", name="same")
        assert len(tokens_of(await first)) == 40

    with_engine(EngineConfig(threads=1, model=str(tiny_model)), use)


def test_an_engine_that_hangs_is_not_ready_until_it_is_heard_again(tiny_model, monkeypatch):
    monkeypatch.setattr(client_module, "READY_WITHIN_SECONDS", 4.0)

    async def use(client: EngineClient) -> None:
        # An idle engine is heard
        await asyncio.sleep(5)
        assert client.ready
        os.kill(client.info.pid, signal.SIGSTOP)
        await until(lambda: not client.ready)
        os.kill(client.info.pid, signal.SIGCONT)
        await until(lambda: client.ready)

    with_engine(EngineConfig(threads=1, model=str(tiny_model)), use)


@pytest.mark.parametrize("waiting", [True, False], ids=["with requests", "idle"])
def test_an_engine_that_hangs_for_long_is_killed_and_comes_back(tiny_model, monkeypatch, waiting):
    monkeypatch.setattr(client_module, "HUNG_AFTER_SECONDS", 3.0)

    async def use(client: EngineClient) -> None:
        # Given an engine that is stopped in the middle of its work, or of nothing
        engine = psutil.Process(client.info.pid)
        tasks = [
            asyncio.create_task(deltas(client, b"x", ENDLESS, name=str(index)))
            for index in range(20 * waiting)
        ]
        if waiting:
            await until(lambda: client.last_report is not None and client.last_report.waiting > 0)
        engine.suspend()
        # When it stays silent, then its requests fail as they do at a death, and it is started again
        outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_SECONDS)
        assert all(type(outcome) is EngineDied for outcome in outcomes), outcomes
        assert all("said nothing for 3 s and was killed" in str(outcome) for outcome in outcomes)
        await until(lambda: client.restarts == 1)
        assert not engine.is_running()
        assert len(tokens_of(await deltas(client, b"y"))) == 40

    with_engine(EngineConfig(threads=1, model=str(tiny_model), slots=4, step_tokens=128), use)


def test_a_step_that_takes_long_is_no_hang(tiny_model, monkeypatch):
    monkeypatch.setattr(client_module, "HUNG_AFTER_SECONDS", 6.0)

    async def use(client: EngineClient) -> None:
        engine = psutil.Process(client.info.pid)
        request = asyncio.create_task(deltas(client, b"x", ENDLESS))
        await until(lambda: client.last_report is not None and client.last_report.running > 0)
        # When steps are held up, together for longer than the limit, but each for less
        for _ in range(3):
            engine.suspend()
            await asyncio.sleep(2.5)
            engine.resume()
            await asyncio.sleep(0.1)
        # Then nothing is lost
        assert len(tokens_of(await request)) == ENDLESS.max_tokens
        assert client.restarts == 0
        # and a model whose single token takes a second is given the time that a full step of it can take
        client.info = msgspec.structs.replace(client.info, warm_up_seconds=1.0)
        assert client.hung_after_seconds >= client.info.step_tokens

    with_engine(EngineConfig(threads=1, model=str(tiny_model), slots=4), use)


def test_the_engine_leaves_with_its_parent_however_that_ends(tiny_model):
    program = (
        "import asyncio, sys\n"
        "from labsupport.engine.client import EngineClient\n"
        "from labsupport.engine.config import EngineConfig\n"
        "async def main():\n"
        "    client = await EngineClient.start(EngineConfig(model=sys.argv[1]))\n"
        "    print(client.info.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tiny_model)], stdout=subprocess.PIPE, text=True
    ) as parent:
        engine = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert psutil.wait_procs([engine], timeout=PATIENCE_SECONDS)[1] == []


def test_a_closed_client_leaves_no_process_and_ends_its_requests(tiny_model):
    async def main() -> None:
        client = await EngineClient.start(EngineConfig(threads=1, model=str(tiny_model)))
        engine = psutil.Process(client.info.pid)
        task = asyncio.create_task(deltas(client, b"x", ENDLESS))
        await until(lambda: client.last_report is not None and client.last_report.running > 0)
        await client.close()
        with pytest.raises(EngineDied, match="closed"):
            await task
        assert not engine.is_running()
        await client.close()

    asyncio.run(main())


def test_an_engine_that_cannot_start_says_why(tiny_model, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_model.read_bytes()[:-100])
    with pytest.raises(EngineFailed, match="truncated"):
        asyncio.run(EngineClient.start(EngineConfig(threads=1, model=str(cut))))


def test_a_process_that_dies_while_loading_is_reported(tiny_model, monkeypatch):
    # Given an interpreter that ends by a signal
    killer = "import os, signal; os.kill(os.getpid(), signal.SIGABRT)"
    real = subprocess.Popen
    monkeypatch.setattr(
        process_module.subprocess,
        "Popen",
        lambda _command, **settings: real([sys.executable, "-c", killer], **settings),
    )
    with pytest.raises(EngineFailed, match=r"SIGABRT.*while it loaded"):
        asyncio.run(EngineClient.start(EngineConfig(threads=1, model=str(tiny_model))))


def test_what_a_reader_never_gets_to_is_counted_all_the_same(tiny_model):
    counted: list[Delta] = []

    async def use(client: EngineClient) -> None:
        stream = client.generate([1, 2, 3], GREEDY, request_id="unread", counted=counted.append)
        async with aclosing(stream):
            await anext(stream)
            await until(lambda: counted[-1].finish_reason is not None)

    with_engine(EngineConfig(threads=1, model=str(tiny_model)), use)
    assert sum(len(delta.tokens) for delta in counted) == GREEDY.max_tokens
