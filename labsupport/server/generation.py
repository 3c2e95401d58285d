"""One HTTP request's sequences, run together in the engine and counted.

Right means: every sequence that was submitted ends or is aborted, whichever way the request ends, and its
place in the queue is given back exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import msgspec

from labsupport.engine.client import EngineClient
from labsupport.engine.messages import Delta, SamplingParams
from labsupport.errors import LabsupportError
from labsupport.server.accounts import Accounts, Request
from labsupport.server.answers import AnswerFormat, Collected
from labsupport.server.errors import ApiError, from_engine
from labsupport.server.meter import EngineMeter
from labsupport.server.metrics import Metrics
from labsupport.server.response_format import ResponseFormat
from labsupport.server.streaming import DONE, event
from labsupport.server.structured import StructuredOutput
from labsupport.server.usage import usage_of


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one request asks of the engine: sequences in the order of its choices, n to a prompt.

    id: its answer's. arrived: when it came in, on the monotonic clock, in seconds.
    form: what the answer has to be. priority: lower is earlier.
    """

    id: str
    route: str
    model: str
    arrived: float
    sequences: Sequence[tuple[list[int], SamplingParams]]
    choices_per_prompt: int
    key: str
    form: ResponseFormat | None = None
    priority: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Each prompt once, however many choices it has."""
        return sum(len(tokens) for tokens, _ in self.sequences[:: self.choices_per_prompt])

    @property
    def most_tokens(self) -> int:
        """What it can use: each prompt once, and each completion at its longest."""
        return self.prompt_tokens + sum(params.max_tokens for _, params in self.sequences)

    def request(self) -> Request:
        """What its account needs to know of it."""
        return Request(
            id=self.id,
            key=self.key,
            route=self.route,
            model=self.model,
            arrived=self.arrived,
            sequences=len(self.sequences),
            most_tokens=self.most_tokens,
            prompt_tokens=self.prompt_tokens,
        )


class Generator:
    """Runs jobs, within the limits of the queue and of their keys, and measures and accounts them."""

    def __init__(self, metrics: Metrics, accounts: Accounts, structured: StructuredOutput) -> None:
        self._metrics = metrics
        self._accounts = accounts
        self._structured = structured

    async def run(self, job: Job, engine: EngineClient) -> AsyncGenerator[tuple[int, Delta], None]:
        """Deltas of all sequences as they come, each with its choice's index.

        Ends once the job's row in the ledger is durable. Raises ApiError: 400 or 429 before anything runs,
        503 when the engine fails meanwhile. Raises TrialUnavailable before anything runs.
        """
        for tokens, params in job.sequences:
            engine.check(tokens, params)
        request = job.request()
        with self._accounts.admit(request) as grant:  # first: to read a schema can cost more than the answer
            grammar = await self._structured.grammar(job.form, engine, key=job.key)
            meter = EngineMeter(
                self._metrics,
                [len(tokens) for tokens, _ in job.sequences],
                choices_per_prompt=job.choices_per_prompt,
                arrived=job.arrived,
            )
            async with self._accounts.book(request, grant, meter) as account:
                try:
                    async with contextlib.aclosing(_merged(_streams(job, grammar, engine, meter))) as merged:
                        async for index, delta in merged:
                            await account.is_recorded()
                            yield index, delta
                except LabsupportError as error:
                    raise from_engine(error) from error
                await account.finish()


def _streams(
    job: Job, grammar: str, engine: EngineClient, meter: EngineMeter
) -> list[AsyncGenerator[Delta, None]]:
    return [
        engine.generate(
            tokens,
            msgspec.structs.replace(params, grammar=grammar),
            request_id=f"{job.id}-{index}",
            key=job.key,
            priority=job.priority,
            counted=functools.partial(meter.saw, index),  # at once: it was computed, whoever reads it
        )
        for index, (tokens, params) in enumerate(job.sequences)
    ]


async def collect(deltas: AsyncGenerator[tuple[int, Delta], None], job: Job, form: AnswerFormat) -> bytes:
    """The whole answer as JSON, once every choice has ended."""
    sequences = [Collected(len(tokens)) for tokens, _ in job.sequences]
    async with contextlib.aclosing(deltas):
        async for index, delta in deltas:
            sequences[index].add(delta)
    usage = usage_of(sequences, choices_per_prompt=job.choices_per_prompt)
    return form.whole(sequences, usage).model_dump_json().encode()


async def stream(
    deltas: AsyncGenerator[tuple[int, Delta], None], job: Job, form: AnswerFormat, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events; a failure after the first becomes an event of its own and the end."""
    sequences = [Collected(len(tokens)) for tokens, _ in job.sequences]
    is_open = False
    async with contextlib.aclosing(deltas):
        try:
            async for index, delta in deltas:
                sequence = sequences[index]
                if sequence.num_tokens == 0 and (opening := form.opening(index)):
                    yield event(opening)
                    is_open = True
                if delta.text or delta.logprobs or delta.finish_reason:
                    yield event(form.chunk(index, delta, offset=sequence.spelled_characters))
                    is_open = True
                sequence.add(delta)
        except ApiError as error:
            if not is_open:
                raise
            yield event(error.body)
            return
    if include_usage:
        yield event(form.usage_chunk(usage_of(sequences, choices_per_prompt=job.choices_per_prompt)))
    yield DONE


async def _merged(streams: Sequence[AsyncGenerator[Delta, None]]) -> AsyncGenerator[tuple[int, Delta], None]:
    """Several streams as one, in order of arrival. Closing it closes them all; one's failure ends all."""
    if len(streams) == 1:
        async with contextlib.aclosing(streams[0]) as only:
            async for delta in only:
                yield 0, delta
        return
    arrived: asyncio.Queue[tuple[int, Delta] | Exception | None] = asyncio.Queue()

    async def pump(index: int, stream: AsyncGenerator[Delta, None]) -> None:
        try:
            async with contextlib.aclosing(stream):
                async for delta in stream:
                    arrived.put_nowait((index, delta))
        except Exception as error:
            arrived.put_nowait(error)
        else:
            arrived.put_nowait(None)

    pumps = [asyncio.create_task(pump(index, stream)) for index, stream in enumerate(streams)]
    try:
        open_streams = len(streams)
        while open_streams:
            item = await arrived.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                open_streams -= 1
            else:
                yield item
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
