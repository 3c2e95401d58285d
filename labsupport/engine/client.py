"""The asynchronous handle to the engine process: start it, talk to it, and bring it back when it dies.

Right means: every request ends with a delta that has a `finish_reason` or with an exception, whatever
happens to the process; a generation that nobody reads any more is aborted; and no process outlives its
client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import (
    Abort,
    Delta,
    Failed,
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
_POLL_MILLISECONDS = 100
_LEAVE_SECONDS = 2.0


class EngineFailed(LabsupportError):
    """The engine could not start (no such model, a damaged file, too little memory)."""


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
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromEngine)
        self._context = zmq.asyncio.Context()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._heard = 0.0
        self._requests: dict[str, asyncio.Queue[Delta | EngineDied]] = {}
        self._questions: dict[str, asyncio.Future[Integrity]] = {}
        self._supervisor: asyncio.Task[None] | None = None
        self._failure = "the engine is not running"

    @classmethod
    async def start(cls, config: EngineConfig) -> EngineClient:
        """Start the process and wait until it has loaded and warmed up.

        Raises EngineFailed or ConfigRefused, with what to do about it.
        """
        client = cls(config)
        try:
            await client._spawn()
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
        owes nothing: it takes what the disk takes.
        """
        longest_step_seconds = self.config.step_tokens * self.info.warm_up_seconds
        return max(HUNG_AFTER_SECONDS, STEP_SLACK * longest_step_seconds)

    @property
    def ready(self) -> bool:
        """Whether the engine is up and was heard within the last few seconds."""
        return self._socket is not None and time.monotonic() - self._heard < READY_WITHIN_SECONDS

    def check(self, tokens: Sequence[int], params: SamplingParams) -> None:
        """Raise RequestRefused if this request could never run; call before opening a stream."""
        refuse_impossible(
            tokens,
            params,
            context_tokens=self.info.context_tokens,
            vocabulary_size=self.info.vocabulary_size,
        )

    async def generate(
        self,
        tokens: Sequence[int],
        params: SamplingParams,
        *,
        request_id: str,
        priority: int = 0,
        key: str = "",
    ) -> AsyncGenerator[Delta, None]:
        """Run a prompt and yield its deltas; the last one has `finish_reason`. Use a `request_id` only once.

        Closing or cancelling the iteration aborts the request in the engine (a loop that may be left early
        belongs into `contextlib.aclosing`). Raises RequestRefused before anything runs, EngineDied when the
        process ends meanwhile or is not up.
        """
        self.check(tokens, params)
        if request_id in self._requests:
            raise RequestRefused(f"a request named {request_id!r} is already running")
        if self._socket is None:
            raise self._down()
        inbox: asyncio.Queue[Delta | EngineDied] = asyncio.Queue()
        self._requests[request_id] = inbox
        is_over = False
        try:
            self._send(
                Submit(request_id=request_id, tokens=tuple(tokens), params=params, priority=priority, key=key)
            )
            while not is_over:
                news = await inbox.get()
                if isinstance(news, EngineDied):
                    is_over = True
                    raise news
                if news.finish_reason == "error":
                    is_over = True
                    raise RequestRefused(news.error)
                is_over = news.finish_reason is not None
                yield news
        finally:
            del self._requests[request_id]
            if not is_over:
                self._send(Abort(request_id=request_id))

    async def inspect(self, *, timeout_seconds: float = 10.0) -> Integrity:
        """Ask the engine for its invariants and its queue. Raises EngineDied."""
        if self._socket is None:
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

    async def close(self) -> None:
        """End the process and whatever still runs in it. Safe to repeat."""
        if self._supervisor:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        self._send(Shutdown())
        await self._end_process(_LEAVE_SECONDS)
        self._failure = "the engine was closed"
        self._fail_everything()
        self._context.destroy(linger=0)

    # The process

    async def _spawn(self) -> None:
        """Start the process and wait for its first word. Raises EngineFailed."""
        folder = Path(tempfile.mkdtemp(prefix="engine-"))
        try:
            socket = self._context.socket(zmq.PAIR)
            socket.set(zmq.SNDHWM, 0)
            socket.set(zmq.RCVHWM, 0)
            socket.bind(endpoint := f"ipc://{folder}/socket")
            self._process = subprocess.Popen(
                [sys.executable, "-m", "labsupport.engine.worker", endpoint],
                stdin=subprocess.PIPE,
                env=_environment(),
            )
            stdin = self._process.stdin
            if stdin is not None:
                stdin.write(msgspec.json.encode(self.config) + b"\n")
                stdin.flush()  # and left open: its end tells the process that we are gone
            message = await self._first_word(socket)
        except BaseException:
            socket.close(linger=0)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.info, self._socket, self._heard = message, socket, time.monotonic()

    async def _first_word(self, socket: zmq.asyncio.Socket) -> Ready:
        while not await socket.poll(_POLL_MILLISECONDS):
            if self._process is None or self._process.poll() is not None:
                if await socket.poll(0):
                    break
                raise EngineFailed(
                    f"the engine process ended ({self._death()}) while it loaded {self.config.model}",
                    remedy="Is the file whole, and is there memory for it? `labsupport doctor` checks both.",
                )
        message = self._decoder.decode(await socket.recv())
        if isinstance(message, Failed):
            raise EngineFailed(message.problem, allowed=message.allowed, remedy=message.remedy)
        if not isinstance(message, Ready):
            raise EngineFailed(f"the engine began with {type(message).__name__}")
        return message

    async def _supervise(self) -> None:
        """Read what the engine says; when it dies or hangs, fail its requests and restart it. For ever."""
        while True:
            self._failure = await self._read_until_death()
            self._fail_everything()
            await self._end_process(0)
            pause_seconds = 0.1
            while self._socket is None:
                try:
                    await self._spawn()
                except (EngineFailed, OSError, zmq.ZMQError) as error:
                    await self._end_process(0)
                    self._failure = f"the engine died and does not start again: {error}"
                    await asyncio.sleep(pause_seconds)
                    pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
            self.restarts += 1

    async def _read_until_death(self) -> str:
        """How it ended: the process is gone, or silent for so long that it has to go."""
        socket, process = self._socket, self._process
        if socket is None or process is None:
            return self._failure
        silent_polls = 0  # not the clock: if it is we who were held up, the engine is not to blame
        while silent_polls * _POLL_MILLISECONDS / 1000 < self.hung_after_seconds:
            if await socket.poll(_POLL_MILLISECONDS):
                silent_polls = 0
                self._hear(self._decoder.decode(await socket.recv()))
            elif process.poll() is not None:
                return f"the engine process ended ({self._death()})"
            else:
                silent_polls += 1
        return f"the engine process hung: it said nothing for {self.hung_after_seconds:g} s and was killed"

    def _hear(self, message: FromEngine) -> None:
        self._heard = time.monotonic()
        if isinstance(message, StepReport):
            self.last_report = message
            for delta in message.deltas:
                if inbox := self._requests.get(delta.request_id):
                    inbox.put_nowait(delta)
        elif isinstance(message, Integrity):
            answer = self._questions.get(message.question_id)
            if answer and not answer.done():
                answer.set_result(message)

    async def _end_process(self, patience_seconds: float) -> None:
        """Wait so long, then kill; and let go of what belonged to the process."""
        socket, self._socket = self._socket, None
        process, self._process = self._process, None
        if process:
            deadline = time.monotonic() + patience_seconds
            while process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            process.kill()
            while process.poll() is None:  # a wait() would stop everything else, and can be long in a driver
                await asyncio.sleep(0.01)
            if process.stdin:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
        if socket:
            socket.close(linger=0)

    def _death(self) -> str:
        status = self._process.poll() if self._process else None
        if status is not None and status < 0:
            return f"signal {signal.Signals(-status).name}"
        return f"exit status {status}"

    def _down(self) -> EngineDied:
        return EngineDied(self._failure, remedy="Ask again in a moment: the engine is being restarted.")

    def _fail_everything(self) -> None:
        for inbox in self._requests.values():
            inbox.put_nowait(self._down())
        for answer in self._questions.values():
            if not answer.done():
                answer.set_exception(self._down())

    def _send(self, message: ToEngine) -> None:
        if self._socket is not None:
            # The queue has no bound, so this is sent before the call returns and there is nothing to await.
            self._socket.send(msgspec.msgpack.encode(message))


def _environment() -> dict[str, str]:
    """For the child: passive waits (see `runners.threads`), and this very package, wherever it was found.

    A dying llama.cpp would start a debugger to print its stack, which delays the restart by seconds.
    """
    package_parent = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH", "")]))
    defaults = {"OMP_WAIT_POLICY": "PASSIVE", "GGML_NO_BACKTRACE": "1"}
    return defaults | os.environ | {"PYTHONPATH": path}
