"""A contender's process: started, waited for, watched, and gone at the end, whatever happens to us."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from benchmarks.contenders.contender import Contender, Setup
from labsupport.errors import LabsupportError
from labsupport.server.child import Child

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
        self._child = Child("benchmark-")

    def __enter__(self) -> Self:
        leash = [sys.executable, str(Path(__file__).with_name("leash.py"))]
        self._child.start([*leash, *self._command], self.contender.environment(self._setup))
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
        if self._child.process is None:
            return []
        return psutil.Process(self._child.process.pid).children(recursive=True)

    def resident_bytes(self) -> int:
        """Resident memory of all of them."""
        return sum(process.memory_info().rss for process in self.processes)

    def stop(self) -> None:
        """End it. Safe to repeat."""
        self._child.stop(STOP_SECONDS)

    def _wait_until_ready(self) -> None:
        if reason := self._child.why_not(
            self._is_ready, within_seconds=START_SECONDS, poll_seconds=_POLL_SECONDS
        ):
            raise LabsupportError(
                f"{self.contender.name} {reason}", remedy=f"Try it by hand: {' '.join(self._command)}"
            )

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
