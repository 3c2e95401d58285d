"""A server in a process of its own, with its log in a file, for as long as somebody holds it.

Right means: nothing of it is left after `stop`, nor after our own death. Its standard input is a pipe that we
hold open and never write to: however this process ends, the pipe ends with it.
"""

from __future__ import annotations

import collections
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PACKAGES = str(Path(__file__).resolve().parents[2])


class Child:
    """A process that ends when its standard input does.

    folder: its own, for the log and what else it needs; gone after `stop`.
    process: None before `start` and after `stop`.
    """

    def __init__(self, prefix: str) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix=prefix)
        self.folder = Path(self._temporary.name)
        self._log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Run `command` with our environment and this one's; it finds the packages that we run from."""
        path = os.pathsep.join(filter(None, [_PACKAGES, os.environ.get("PYTHONPATH", "")]))
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": path} | dict(environment or {}),
            )

    def why_not(
        self,
        is_ready: Callable[[], bool],
        *,
        within_seconds: float,
        poll_seconds: float,
        meanwhile: Callable[[float], None] = lambda _: None,
    ) -> str:
        """Wait until it is ready: "" then, and else why it is not, with its last words.

        meanwhile: called at each poll, with the seconds that were waited.
        """
        begin = time.monotonic()
        while not is_ready():
            waited_seconds = time.monotonic() - begin
            if self.process is None or self.process.poll() is not None:
                status = self.process.returncode if self.process else None
                return f"ended with status {status} before it was ready. {self._last_words()}"
            if waited_seconds > within_seconds:
                return f"was not ready after {within_seconds:g} s. {self._last_words()}"
            meanwhile(waited_seconds)
            time.sleep(poll_seconds)
        return ""

    def log_tail(self, lines: int) -> str:
        """The last lines of what it printed."""
        try:
            with self._log.open(encoding="utf-8", errors="replace") as log:
                return "".join(collections.deque(log, maxlen=lines)).rstrip()
        except FileNotFoundError:
            return ""

    def stop(self, patience_seconds: float) -> None:
        """Let it end by itself, then end it. Safe to repeat."""
        process, self.process = self.process, None
        if process is not None:
            if process.stdin:
                process.stdin.close()
            try:
                process.wait(patience_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._temporary.cleanup()

    def _last_words(self) -> str:
        return f"Its last lines:\n{self.log_tail(12)}"
