"""A load test: prompts, sent as the arrivals say, until one of its bounds is reached.

Right means: nothing is sent after the bounds, everything that was sent is waited for, and the clock of an
open loop is kept however long answers take.
"""

from __future__ import annotations

import asyncio
import functools
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ParamSpec

from labsupport.errors import LabsupportError
from labsupport.loadtest.arrivals import Arrivals, Closed, Gamma
from labsupport.loadtest.client import Client
from labsupport.loadtest.prompts import Messages, Prompt, as_prompts
from labsupport.loadtest.record import Record
from labsupport.loadtest.report import Report
from labsupport.loadtest.slo import SLO

P = ParamSpec("P")


async def arun(
    url: str,
    prompts: Iterable[Prompt | str | list[int] | Messages],
    arrivals: Arrivals,
    *,
    model: str | None = None,
    unlisted: bool = False,
    max_tokens: int = 64,
    seconds: float | None = None,
    least_requests: int = 0,
    extra: dict[str, Any] | None = None,
    api_key: str | None = None,
    timeout_seconds: float = 60.0,
    slo: SLO | None = None,
    seed: int = 0,
    progress: Callable[[Record], None] | None = None,
) -> Report:
    """Send the prompts, each once and in order, and report how they were answered.

    url: the server, with or without `/v1`. model: its name for the model; None takes the only one it has.
    unlisted: ask for `model` though the server may not list it, as `transformers serve` does not.
    prompts: texts, token ids, conversations (lists of messages) or `Prompt`s.
    arrivals: `Closed(clients)`, `Poisson(per_second)` or `Gamma(per_second, burstiness)`.
    max_tokens: the longest answer where a prompt does not say.
    seconds: when to stop sending, though not before `least_requests` were sent; None sends all prompts.
    extra: further fields of each request, such as `{"temperature": 0, "ignore_eos": True}`.
    timeout_seconds: how long an answer may be silent until its request counts as failed.
    seed: of the arrivals of an open loop. progress: called with each record as it is made.

    A request that fails is a record with an error, and the run goes on. Raises NothingToTest (a
    LabsupportError) where there is nothing to test: no server, another kind of server, no such model.

    `arun` is for programs that have an event loop; `run` is the same without `await`, in a notebook too.
    """
    if max_tokens < 1 or (seconds is not None and seconds <= 0) or timeout_seconds <= 0:
        raise LabsupportError(
            f"max_tokens is {max_tokens}, seconds {seconds}, timeout_seconds {timeout_seconds}",
            allowed="numbers over 0",
        )
    async with Client(url, api_key=api_key, timeout_seconds=timeout_seconds) as client:
        name = model if model and unlisted else await client.model(model)
        fields = extra or {}
        began = time.monotonic()

        def clock() -> float:
            return time.monotonic() - began

        records: list[Record] = []

        async def ask(prompt: Prompt, arrived: float) -> None:
            body = prompt.body(model=name, max_tokens=max_tokens, extra=fields)
            record = await client.ask(prompt, body, clock=clock, arrived=arrived)
            records.append(record)
            if progress:
                progress(record)

        supply = _Supply(as_prompts(prompts), seconds, least_requests)
        try:
            if isinstance(arrivals, Closed):
                await _closed_loop(arrivals, supply, ask, clock)
            else:
                await _open_loop(arrivals, supply, ask, clock, random.Random(seed))
        except ExceptionGroup as group:  # of the task group: a prompt that is none, say
            raise group.exceptions[0] from None
    return Report(tuple(sorted(records, key=lambda record: record.arrived)), arrivals, slo)


@dataclass
class _Supply:
    """The prompts that are still to be sent, as long as the bounds allow."""

    prompts: Iterator[Prompt]
    seconds: float | None
    least_requests: int
    taken: int = field(default=0)

    def next(self, at_seconds: float) -> Prompt | None:
        """The prompt to send at that time since the start; None when it is over."""
        if self.seconds is not None and at_seconds >= self.seconds and self.taken >= self.least_requests:
            return None
        self.taken += 1
        return next(self.prompts, None)


Ask = Callable[[Prompt, float], Coroutine[Any, Any, None]]


async def _closed_loop(arrivals: Closed, supply: _Supply, ask: Ask, clock: Callable[[], float]) -> None:
    async def client() -> None:
        while prompt := supply.next(now := clock()):
            await ask(prompt, now)

    async with asyncio.TaskGroup() as clients:
        for _ in range(arrivals.clients):
            clients.create_task(client())


async def _open_loop(
    arrivals: Gamma, supply: _Supply, ask: Ask, clock: Callable[[], float], chance: random.Random
) -> None:
    async with asyncio.TaskGroup() as requests:
        for due in arrivals.times(chance):
            prompt = supply.next(due)
            if prompt is None:
                return
            await asyncio.sleep(max(0.0, due - clock()))
            requests.create_task(ask(prompt, due))


def _waited_for(work: Callable[P, Coroutine[Any, Any, Report]]) -> Callable[P, Report]:
    """`work` for ordinary code, with the same parameters."""

    @functools.wraps(work)
    def done(*args: P.args, **kwargs: P.kwargs) -> Report:
        return _now(work(*args, **kwargs))

    done.__name__ = done.__qualname__ = work.__name__.removeprefix("a")
    return done


def _now(work: Coroutine[Any, Any, Report]) -> Report:
    """The result of `work`, for ordinary code; in a notebook too, whose own event loop runs already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    outcome: list[Report] = []
    failure: list[BaseException] = []

    def elsewhere() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=elsewhere, name="load test")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


run = _waited_for(arun)
