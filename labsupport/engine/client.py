"""The asynchronous handle to the engine process: start it, talk to it, and bring it back when it dies.

Right means: every request ends with a delta that has a `finish_reason` or with an exception, whatever
happens to the process; a generation that nobody reads any more is aborted; and no process outlives its
client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence

import zmq

from labsupport.engine.config import EngineConfig
from labsupport.engine.faults import exception_for
from labsupport.engine.inbox import Inbox
from labsupport.engine.messages import (
    Abort,
    Delta,
    FromEngine,
    Inspect,
    Integrity,
    Ready,
    SamplingParams,
    Shutdown,
    StepReport,
    Submit,
    ToEngine,
)
from labsupport.engine.process import EngineFailed, EngineLoadsTooLong, EngineProcess
from labsupport.engine.snapshot import Snapshot, Watch
from labsupport.engine.validation import RequestRefused, refuse_impossible
from labsupport.errors import LabsupportError

__all__ = ["EngineClient", "EngineDied", "EngineFailed", "RequestRefused"]

READY_WITHIN_SECONDS = 10.0
"""An engine that was silent for longer is not ready: it hangs, or one step takes longer than that."""
HUNG_AFTER_SECONDS = 60.0
"""An engine that was silent for longer hangs, unless its steps are slow: see `hung_after_seconds`."""
STEP_SLACK = 8
"""How much slower than its warm-up a step may be: other programs on its cores can slow it nearly tenfold."""
LONGEST_PAUSE_SECONDS = 30.0
"""The longest pause between two attempts to bring back an engine that does not start."""
_LEAVE_SECONDS = 2.0

logger = logging.getLogger("labsupport.engine")


class EngineDied(LabsupportError):
    """The engine process ended while the request ran; it is being restarted, so a retry can work."""


class EngineClient:
    """One engine process, supervised. Use from one event loop; `async with` closes it.

    info: what the engine runs on and can do (of the latest start).
    last_report: the newest step report, None before the first.
    restarts: how often the process was started again.
    """

    info: Ready

    def __init__(self, config: EngineConfig) -> None:
        self.config = config.checked()
        self.last_report: StepReport | None = None
        self.restarts = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._process: EngineProcess | None = None
        self._heard = 0.0
        self._requests: dict[str, Inbox] = {}
        self._questions: dict[str, asyncio.Future[Integrity]] = {}
        self._on_snapshot: Callable[[Snapshot], None] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._failure = "the engine is not running"

    @classmethod
    async def start(cls, config: EngineConfig) -> EngineClient:
        """Start the process and wait until it has loaded and warmed up.

        Raises EngineFailed or ConfigRefused, with what to do about it; EngineLoadsTooLong where trying again
        may help.
        """
        client = cls(config)
        try:
            client._take(await EngineProcess.start(client.config, client._context, client._hear))
        except BaseException:
            await client.close()
            raise
        client._supervisor = asyncio.create_task(client._supervise(), name="engine supervisor")
        return client

    async def __aenter__(self) -> EngineClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def hung_after_seconds(self) -> float:
        """Silence after which the engine is killed and started again.

        It owes a word twice a second when idle, and after every step when not. The longest step computes
        `step_tokens` tokens, which takes at most as long as computing them one at a time, so a large model
        on a slow machine is given that time, with slack, where it is more than HUNG_AFTER_SECONDS. Loading
        has a limit of its own, `process.load_within_seconds`.
        """
        longest_step_seconds = self.info.step_tokens * self.info.warm_up_seconds
        return max(HUNG_AFTER_SECONDS, STEP_SLACK * longest_step_seconds)

    @property
    def ready(self) -> bool:
        """Whether the engine is up and was heard within the last few seconds."""
        return self._process is not None and time.monotonic() - self._heard < READY_WITHIN_SECONDS

    @property
    def trouble(self) -> str:
        """Why the engine is not up, for everybody to read: no file's name is in it. "" while it is up."""
        return "" if self._process else self._failure.partition(":")[0]

    def check(self, tokens: Sequence[int], params: SamplingParams) -> None:
        """Raise RequestRefused if this request could never run; call before opening a stream."""
        refuse_impossible(tokens, params, self.info)

    async def generate(
        self,
        tokens: Sequence[int],
        params: SamplingParams,
        *,
        request_id: str,
        priority: int = 0,
        key: str = "",
        counted: Callable[[Delta], None] | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """Run a prompt and yield its deltas; the last one has `finish_reason`. Use a `request_id` only once.

        counted: told of every delta as it comes, whether or not the iteration gets to it.

        Closing or cancelling the iteration aborts the request in the engine (a loop that may be left early
        belongs into `contextlib.aclosing`). Raises RequestRefused before anything runs, NoRoom when the
        device has none for it, EngineDied when the process ends meanwhile or is not up, EngineFault.
        """
        self.check(tokens, params)
        if request_id in self._requests:
            raise RequestRefused(f"a request named {request_id!r} is already running")
        if self._process is None:
            raise self._down()
        asked = Submit(request_id=request_id, tokens=tuple(tokens), params=params, priority=priority, key=key)
        inbox = Inbox(counted)
        self._requests[request_id] = inbox
        still_runs = True
        try:
            self._send(asked)
            while still_runs:
                delta = await inbox.get()
                still_runs = delta.finish_reason is None
                if delta.finish_reason == "error":
                    raise exception_for(delta)
                yield delta
        finally:
            del self._requests[request_id]
            if still_runs:
                self._send(Abort(request_id=request_id))

    async def inspect(self, *, timeout_seconds: float = 10.0) -> Integrity:
        """Ask the engine for its invariants and its queue. Raises EngineDied."""
        if self._process is None:
            raise self._down()
        question_id = uuid.uuid4().hex
        answer: asyncio.Future[Integrity] = asyncio.get_running_loop().create_future()
        self._questions[question_id] = answer
        try:
            self._send(Inspect(question_id=question_id))
            return await asyncio.wait_for(answer, timeout_seconds)
        except TimeoutError as error:
            raise EngineDied(f"the engine did not answer within {timeout_seconds} s") from error
        finally:
            del self._questions[question_id]

    def watch(self, on_snapshot: Callable[[Snapshot], None], *, seconds: float) -> None:
        """Be called with snapshots of the engine at work for so long; 0 ends it. Renew it to go on."""
        self._on_snapshot = on_snapshot if seconds else None
        self._send(Watch(seconds=seconds))

    async def close(self) -> None:
        """End the process and whatever still runs in it. Safe to repeat."""
        if self._supervisor:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        self._send(Shutdown())
        self._failure = "the engine was closed"
        await self._let_go(_LEAVE_SECONDS)
        self._context.destroy(linger=0)

    # The process

    async def _supervise(self) -> None:
        """When the engine dies, hangs or is not understood, fail its requests and restart it. For ever.

        Whatever goes wrong here is logged and survived: nobody else would bring the engine back.
        """
        while True:
            try:
                if self._process:
                    how = await self._process.until_silent(self.hung_after_seconds)
                    self._failure = f"the engine process {how}"
            except Exception as error:
                logger.exception("cannot follow what the engine says; it is started again")
                self._failure = f"what the engine process said could not be read ({type(error).__name__})"
            try:
                await self._let_go(0)
            except Exception:
                logger.exception("the engine process that is to go may still be there")
            await self._bring_back()
            self.restarts += 1

    async def _bring_back(self) -> None:
        """Start a process, again and again until one is up."""
        pause_seconds = 0.1
        while self._process is None:
            try:
                self._take(await EngineProcess.start(self.config, self._context, self._hear))
            except Exception as error:
                if not isinstance(error, (EngineFailed, OSError, zmq.ZMQError)):
                    logger.exception("a mistake in starting the engine")
                self._failure = f"the engine died and does not start again: {error}"
                if isinstance(error, EngineLoadsTooLong):
                    self._failure = error.problem
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    def _take(self, process: EngineProcess) -> None:
        self._process, self.info, self._heard = process, process.info, time.monotonic()

    async def _let_go(self, patience_seconds: float) -> None:
        """End the process, if there is one, and all that still runs in it."""
        process, self._process = self._process, None
        self._fail_everything()  # before anything is awaited: nobody may come in between
        if process:
            await process.end(patience_seconds)

    def _hear(self, message: FromEngine) -> None:
        self._heard = time.monotonic()
        if isinstance(message, StepReport):
            self.last_report = message
            for delta in message.deltas:
                if inbox := self._requests.get(delta.request_id):
                    inbox.put(delta)
        elif isinstance(message, Snapshot):
            self._show(message)
        elif isinstance(message, Integrity):
            answer = self._questions.get(message.question_id)
            if answer and not answer.done():
                answer.set_result(message)

    def _show(self, snapshot: Snapshot) -> None:
        try:
            if self._on_snapshot:
                self._on_snapshot(snapshot)
        except Exception:  # a watcher's mistake, which no request has to pay for
            logger.exception("who watches the engine could not take a snapshot, and gets no more")
            self._on_snapshot = None

    def _down(self) -> EngineDied:
        return EngineDied(self._failure, remedy="Ask again in a moment: the engine is being restarted.")

    def _fail_everything(self) -> None:
        for inbox in self._requests.values():
            inbox.put(self._down())
        for answer in self._questions.values():
            if not answer.done():
                answer.set_exception(self._down())

    def _send(self, message: ToEngine) -> None:
        if self._process is not None:
            self._process.send(message)
