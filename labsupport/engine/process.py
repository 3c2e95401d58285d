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

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._socket = context.socket(zmq.PAIR)
        self._stirred = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._socket, self._stirred.set)
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromEngine)
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    async def start(cls, config: EngineConfig, context: zmq.Context[zmq.Socket[bytes]]) -> Self:
        """Start a process and wait for its first word, for `load_within_seconds` at most.

        Raises EngineFailed or OSError, with nothing left of it.
        """
        process = cls(context)
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
        self._stirred.set()  # what came in meanwhile may have been noticed by the sending alone

    async def receive(self) -> FromEngine | None:
        """The next that the engine says; None if it says nothing within POLL_SECONDS.

        What has arrived is taken at once, so that who falls behind catches up before anything else runs. And
        the wait is asyncio's own: `zmq.asyncio` takes six times as long for it, which is a token's price.
        """
        until = asyncio.get_running_loop().time() + POLL_SECONDS
        while True:
            self._stirred.clear()
            try:
                message: FromEngine = self._decoder.decode(self._socket.recv(zmq.NOBLOCK))
                return message
            except zmq.Again:
                try:
                    async with asyncio.timeout_at(until):
                        await self._stirred.wait()
                except TimeoutError:
                    return None

    async def end(self, patience_seconds: float) -> None:
        """Wait so long for it to leave, then kill it. Safe to repeat."""
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
        if not self._socket.closed:
            asyncio.get_running_loop().remove_reader(self._socket)
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
            self.info = await self._first_word(config)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _first_word(self, config: EngineConfig) -> Ready:
        limit_seconds = load_within_seconds(config)
        message = await self.receive()
        silent_polls = 1  # not the clock: if it is we who were held up, the engine is not to blame
        while message is None:
            if silent_polls * POLL_SECONDS > limit_seconds:
                raise EngineLoadsTooLong(
                    f"the engine did not load within {limit_seconds:.0f} s and was killed",
                    remedy="Is what it loads from, or its device, stuck? `labsupport doctor` looks at both.",
                )
            silent_polls += 1
            has_ended = self.has_ended  # asked before its last word is looked for
            message = await self.receive()
            if message is None and has_ended:
                raise EngineFailed(
                    f"the engine process ended ({self.death}) while it loaded {config.model}",
                    remedy="Is the file whole, and is there memory for it? `labsupport doctor` checks both.",
                )
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
