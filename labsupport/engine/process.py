"""One life of the engine process: started, spoken with over a socket, ended.

Right means: who starts one has it loaded and warm, or knows why not and nothing is left behind; and it ends
when its starter does, however that ends.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec
import zmq

from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import Failed, FromEngine, Ready, ToEngine
from labsupport.engine.runners.threads import waiting
from labsupport.errors import LabsupportError

POLL_SECONDS = 0.1
LOAD_SECONDS = 300.0
"""What loading may take besides reading the weights: importing libraries, making the cache, a first step."""
SLOWEST_BYTES_PER_SECOND = 10_000_000
"""No disk or network from which weights are usefully read is slower than that."""


class EngineFailed(LabsupportError):
    """The engine could not start (no such model, a damaged file, too little memory)."""


class EngineLoadsTooLong(EngineFailed):
    """The engine did not load in time and was killed: it may do better when it is started again."""


def load_within_seconds(config: EngineConfig) -> float:
    """How long an engine may load before it is taken to hang: LOAD_SECONDS and the time to read its files.

    Generous on purpose, for a load that is ended too early is lost, and one that hangs is a rare thing.
    """
    model = Path(config.model)
    files = [model] if model.is_file() else [each for each in model.glob("*") if each.is_file()]
    return LOAD_SECONDS + sum(each.stat().st_size for each in files) / SLOWEST_BYTES_PER_SECOND


class EngineProcess:
    """A process that was started; make one with `start`. Use from one event loop.

    info: what it runs on and can do, once it has loaded.
    """

    info: Ready

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], hear: Callable[[FromEngine], None]) -> None:
        self._hear = hear
        self._loop = asyncio.get_running_loop()
        self._first_word: asyncio.Future[FromEngine] = self._loop.create_future()
        self._num_heard = 0
        self._misheard: Exception | None = None
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromEngine)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = context.socket(zmq.PAIR)
        self._loop.add_reader(self._socket, self._listen)

    @classmethod
    async def start(
        cls,
        config: EngineConfig,
        context: zmq.Context[zmq.Socket[bytes]],
        hear: Callable[[FromEngine], None],
    ) -> Self:
        """Start a process and wait for its first word, for `load_within_seconds` at most.

        `hear` is called with each word after that, in the event loop. Raises EngineFailed or OSError, with
        nothing left of it.
        """
        process = cls(context, hear)
        try:
            await process._start(config)
        except BaseException:
            await process.end(0)
            raise
        return process

    @property
    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    @property
    def death(self) -> str:
        """How it ended: "signal SIGKILL" or "exit status 1"."""
        status = self._process.poll() if self._process else None
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):  # real-time signals have no name
                return f"signal {signal.Signals(-status).name}"
            return f"signal {-status}"
        return f"exit status {status}"

    def send(self, message: ToEngine) -> None:
        """Say something to the engine. The queue has no bound, so it is sent before the call returns.

        An engine that has died has no queue: nobody hears it then, and waiting for somebody would stop all.
        """
        with contextlib.suppress(zmq.Again):
            self._socket.send(msgspec.msgpack.encode(message), zmq.NOBLOCK)
        self._listen()  # what came in meanwhile may have been noticed by the sending alone

    async def until_silent(self, longest_seconds: float) -> str:
        """Return once it has ended, or has said nothing for so long: which of both, and how it ended.

        Raises what `hear` raised, or MsgspecError where it said what cannot be read.
        """
        silent_polls = 0  # not the clock: if it is we who were held up, the engine is not to blame
        while silent_polls * POLL_SECONDS < longest_seconds:
            num_heard, had_ended = self._num_heard, self.has_ended
            await asyncio.sleep(POLL_SECONDS)
            if self._misheard:
                raise self._misheard
            silent_polls = 0 if self._num_heard > num_heard else silent_polls + 1
            if had_ended and silent_polls:
                return f"ended ({self.death})"
        return f"hung: it said nothing for {longest_seconds:g} s and was killed"

    def _listen(self) -> None:
        """Hear all that has arrived, at once: who falls behind catches up before anything else runs.

        Called by the loop itself, for a task that waits would cost a turn of the loop more, and a time limit
        on its waiting a timer: both are a token's price.
        """
        try:
            while not self._misheard and not self._socket.closed:
                message = self._next_word()
                if message is None:
                    return
                self._num_heard += 1
                if self._first_word.done():
                    self._hear(message)
                else:
                    self._first_word.set_result(message)
        except Exception as error:
            self._misheard = error
            self._loop.remove_reader(self._socket)

    def _next_word(self) -> FromEngine | None:
        if not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            return None
        message: FromEngine = self._decoder.decode(self._socket.recv(zmq.NOBLOCK))
        return message

    async def end(self, patience_seconds: float) -> None:
        """Wait so long for it to leave, then kill it. Safe to repeat."""
        process, self._process = self._process, None
        if not self._socket.closed:
            self._loop.remove_reader(self._socket)  # what it says now concerns nobody
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
        self._socket.close(linger=0)

    async def _start(self, config: EngineConfig) -> None:
        folder = Path(tempfile.mkdtemp(prefix="engine-"))
        try:
            self._socket.set(zmq.SNDHWM, 0)
            self._socket.set(zmq.RCVHWM, 0)
            self._socket.bind(endpoint := f"ipc://{folder}/socket")
            self._process = subprocess.Popen(
                [sys.executable, "-m", "labsupport.engine.worker", endpoint],
                stdin=subprocess.PIPE,
                env=child_environment(),
            )
            stdin = self._process.stdin
            if stdin is not None:
                stdin.write(msgspec.json.encode(config) + b"\n")
                stdin.flush()  # and left open: its end tells the process that we are gone
            self.info = await self._introduction(config)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _introduction(self, config: EngineConfig) -> Ready:
        limit_seconds = load_within_seconds(config)
        silent_polls = 0
        while not self._first_word.done():
            if silent_polls * POLL_SECONDS > limit_seconds:
                raise EngineLoadsTooLong(
                    f"the engine did not load within {limit_seconds:.0f} s and was killed",
                    remedy="Is what it loads from, or its device, stuck? `labsupport doctor` looks at both.",
                )
            silent_polls += 1
            has_ended = self.has_ended  # asked before its last word is looked for
            await asyncio.wait({self._first_word}, timeout=POLL_SECONDS)
            if self._misheard:
                raise EngineFailed("the engine began with what cannot be read") from self._misheard
            if has_ended and not self._first_word.done():
                raise EngineFailed(
                    f"the engine process ended ({self.death}) while it loaded {config.model}",
                    remedy="Is the file whole, and is there memory for it? `labsupport doctor` checks both.",
                )
        message = self._first_word.result()
        if isinstance(message, Failed):
            raise EngineFailed(message.problem, allowed=message.allowed, remedy=message.remedy)
        if not isinstance(message, Ready):
            raise EngineFailed(f"the engine began with {type(message).__name__}")
        return message


def child_environment() -> dict[str, str]:
    """For the child: how its threads wait (`runners.threads`), and this very package, wherever it was found.

    A dying llama.cpp would start a debugger to print its stack, which delays the restart by seconds.
    """
    package_parent = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH", "")]))
    return {"GGML_NO_BACKTRACE": "1"} | os.environ | waiting(os.environ) | {"PYTHONPATH": path}
