"""A grammar is read beside the steps of others: nobody's next token waits for it."""

from __future__ import annotations

import asyncio
import json
import select
import threading

import psutil
import pytest
from test_engine_process import PATIENCE_SECONDS, deltas, until, with_engine
from test_scheduler import sequence

from labsupport.engine.arrivals import Arrivals
from labsupport.engine.client import EngineClient, RequestRefused
from labsupport.engine.config import EngineConfig
from labsupport.engine.grammars.json_schema import to_grammar
from labsupport.engine.messages import SamplingParams
from labsupport.engine.sequence import Sequence

SLOW = "root ::= r0\n" + "".join(f"r{n} ::= r{n + 1} | r{n + 1}\n" for n in range(24)) + 'r24 ::= "a"\n'
"""llama.cpp takes long to read it: it looks for left recursion along every way there is."""
GRAMMAR = to_grammar({"enum": ["yes", "no"]})
"""Where an answer is short."""


def held_to(name: str, grammar: str = GRAMMAR) -> Sequence:
    new = sequence(name, [1], 1, order=(0.0, 0))
    new.params = SamplingParams(max_tokens=1, grammar=grammar)
    return new


def ready(arrivals: Arrivals) -> list[tuple[str, str]]:
    """Wait until something is ready, as the engine's loop does."""
    assert select.select([arrivals], [], [], PATIENCE_SECONDS)[0]
    return [(each.request_id, problem) for each, problem in arrivals.ready()]


@pytest.fixture
def gate():
    """Lets `reading` go on."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def arrivals(gate):
    def reading(text: str) -> object:
        assert gate.wait(PATIENCE_SECONDS)
        if text == "nonsense":
            raise ValueError("cannot read it")
        return object()

    arrivals = Arrivals(reading)
    yield arrivals
    gate.set()
    arrivals.close()


def test_sequences_are_ready_once_their_grammar_is_read_and_in_the_order_in_which_they_came(arrivals, gate):
    assert not arrivals.take(sequence("free", [1], 1, order=(0.0, 0)))
    for name in ("a", "b", "c"):
        assert arrivals.take(held_to(name, "nonsense" if name == "b" else GRAMMAR))
    # Nobody is held up meanwhile
    assert list(arrivals.ready()) == []
    assert arrivals.names == ["a", "b", "c"]
    gate.set()
    told = []
    while len(told) < 3:
        told += ready(arrivals)
    assert told == [("a", ""), ("b", "cannot read it"), ("c", "")]
    assert arrivals.names == []


def test_one_that_ends_before_its_grammar_is_read_is_never_ready(arrivals, gate):
    arrivals.take(held_to("left"))
    arrivals.take(held_to("stays"))
    with pytest.raises(ValueError, match="already a request 'stays'"):
        arrivals.take(held_to("stays"))
    assert arrivals.forget("left")
    assert not arrivals.forget("left")
    gate.set()
    told: list[tuple[str, str]] = []
    while not told:
        told = ready(arrivals)
    assert told == [("stays", "")]
    # It is one that is held now, until it ends
    with pytest.raises(ValueError, match="already"):
        arrivals.take(held_to("stays"))
    assert not arrivals.forget("stays")
    assert arrivals.take(held_to("stays"))


def test_others_go_on_while_a_grammar_is_read_that_takes_long(tiny_model):
    async def use(client: EngineClient) -> None:
        endless = SamplingParams(max_tokens=480, temperature=0, ignore_eos=True)
        own = SamplingParams(max_tokens=2, temperature=0, grammar=SLOW)
        seen = {"other": 0}

        async def other() -> None:
            while True:
                async for delta in client.generate([65], endless, request_id=f"other {seen['other']}"):
                    seen["other"] += len(delta.tokens)

        task = asyncio.create_task(other())
        await until(lambda: seen["other"] > 3)
        before = seen["other"]
        first = await anext(client.generate(list(b"?"), own, request_id="held"))
        assert first.text == "a"
        # Had a step waited for it, there would have been no more than those of the few steps around
        assert seen["other"] - before > 20
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with_engine(EngineConfig(threads=1, model=str(tiny_model)), use)


def test_an_engine_rests_after_somebody_has_left_whose_grammar_was_being_read(tiny_model):
    async def use(client: EngineClient) -> None:
        slow = SamplingParams(max_tokens=2, temperature=0, grammar=SLOW)
        leaving = asyncio.create_task(deltas(client, b"?", slow, name="leaves"))
        await asyncio.sleep(0.1)
        leaving.cancel()
        # The thread is through with its grammar once the next one's is read
        await deltas(client, b"?", SamplingParams(max_tokens=9, temperature=0, grammar=GRAMMAR), name="next")
        leaving = asyncio.create_task(deltas(client, b"?", slow, name="leaves too"))
        await asyncio.sleep(0.1)
        leaving.cancel()
        engine = psutil.Process(client.info.pid)
        used: list[float] = []

        async def is_at_rest() -> bool:
            before = sum(engine.cpu_times()[:2])
            await asyncio.sleep(1)
            used.append(sum(engine.cpu_times()[:2]) - before)
            return used[-1] < 0.3

        for _ in range(60):
            if await is_at_rest():
                return
        pytest.fail(f"an idle engine goes on computing: {used} s in each second")

    with_engine(EngineConfig(threads=1, model=str(tiny_model)), use)


def test_answers_held_to_grammars_come_and_go_and_nothing_is_left(tiny_model):
    async def use(client: EngineClient) -> None:
        how = SamplingParams(max_tokens=30, temperature=1, grammar=GRAMMAR)
        unread = SamplingParams(max_tokens=30, temperature=1, grammar="root ::= (")
        leaving = asyncio.create_task(deltas(client, b"x", how, name="leaves"))
        await asyncio.sleep(0)
        leaving.cancel()
        streams = await asyncio.gather(*(deltas(client, b"x", how, name=str(place)) for place in range(9)))
        for stream in streams:
            assert json.loads("".join(delta.text for delta in stream)) in ("yes", "no")
        # One that llama.cpp cannot read, which no trial would have let through, is an error of its own
        with pytest.raises(RequestRefused, match="cannot read the grammar"):
            await deltas(client, b"x", unread, name="unreadable")
        # A name can be used again
        assert await deltas(client, b"x", how, name="0")

    with_engine(EngineConfig(threads=1, model=str(tiny_model), slots=3), use)
