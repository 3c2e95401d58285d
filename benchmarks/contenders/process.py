"""A contender's process: started, waited for, watched, and gone at the end, whatever happens to us."""

from __future__ import annotations

import collections
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from benchmarks.contenders.contender import Contender, Setup
from labsupport.errors import LabsupportError

START_SECONDS = 300.0
STOP_SECONDS = 30.0
_POLL_SECONDS = 0.1


class Running:
    """A contender that answers, for the length of a `with` block. `url` has no `/v1`."""

    def __init__(self, contender: Contender, setup: Setup) -> None:
        self.contender = contender
        self._setup = setup
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = contender.command(setup, port)
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-")
        self._log = Path(self._folder.name) / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("leash.py")), *self._command],
                stdin=subprocess.PIPE,  # held open and never written to: it ends with us
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": path} | self.contender.environment(self._setup),
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def processes(self) -> list[psutil.Process]:
        """The server's own processes: what the leash holds."""
        if self._process is None:
            return []
        return psutil.Process(self._process.pid).children(recursive=True)

    def resident_bytes(self) -> int:
        """Resident memory of all of them."""
        return sum(process.memory_info().rss for process in self.processes)

    def log_tail(self, lines: int = 15) -> str:
        with self._log.open(encoding="utf-8", errors="replace") as log:
            return "".join(collections.deque(log, maxlen=lines)).rstrip()

    def stop(self) -> None:
        """End it. Safe to repeat."""
        process, self._process = self._process, None
        if process is not None:
            if process.stdin:
                process.stdin.close()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    def _wait_until_ready(self) -> None:
        begin = time.monotonic()
        while not self._is_ready():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() - begin > START_SECONDS:
                what = "ended before it was ready" if ended else f"was not ready after {START_SECONDS:g} s"
                raise LabsupportError(
                    f"{self.contender.name} {what}. Its last lines:\n{self.log_tail()}",
                    remedy=f"Try it by hand: {' '.join(self._command)}",
                )
            time.sleep(_POLL_SECONDS)

    def _is_ready(self) -> bool:
        try:
            with httpx.Client(trust_env=False, timeout=5) as http:
                return http.get(self.url + self.contender.ready_path).status_code == 200
        except httpx.TransportError:
            return False


def free_port() -> int:
    """A port of this machine that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
