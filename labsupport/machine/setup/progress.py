"""Child processes that somebody is waiting for: what runs, what it says, and for how long.

Right means: at any moment the reader can see which step of how many is running, what it is waiting for and
since when; everything that was printed is kept in a log; nothing outlives the set-up that started it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from labsupport.errors import LabsupportError

SECONDS_BETWEEN_LINES = 15.0
TAIL_LINES = 20


class StepFailed(LabsupportError):
    """A command of set-up failed; the message holds the end of what it printed."""


class Job:
    """A command that runs beside set-up, in a process group of its own, with its output in a log."""

    def __init__(
        self, words: Sequence[str | Path], *, log: Path, environment: Mapping[str, str], cwd: Path
    ) -> None:
        self.words = [str(word) for word in words]
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                self.words,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def status(self) -> int | None:
        """The exit status, or None while the command runs."""
        return self._process.poll()

    def last_line(self) -> str:
        """The newest line that the command printed, or nothing."""
        lines = self.tail(1)
        return lines[-1] if lines else ""

    def tail(self, count: int) -> list[str]:
        """The last `count` lines that the command printed and that are not empty."""
        with self.log.open("rb") as source:
            source.seek(max(0, self.log.stat().st_size - 16_384))
            text = source.read().decode(errors="replace").replace("\r", "\n")
        return [line.strip() for line in text.splitlines() if line.strip()][-count:]

    def output(self) -> str:
        """Everything the command printed so far."""
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        """End the command and all that it started."""
        if self.status is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def failure(self, title: str) -> StepFailed:
        """The error to show when this command has failed."""
        tail = "\n".join(f"    {line}" for line in self.tail(TAIL_LINES))
        return StepFailed(
            f"“{title}” failed (exit status {self.status}): {' '.join(self.words)}\n{tail}",
            remedy=f"read the whole output in {self.log}, mend the cause, and run the same command again: "
            "it goes on from here",
        )


class Board:
    """What the reader sees: one heading a step, and a line that says what the step is waiting for."""

    def __init__(self, steps: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.steps = steps
        self.clock = clock
        self.started = clock()
        self._live = sys.stdout.isatty()
        self._number = 0
        self._title = ""
        self._said = self._since = self.started

    def heading(self, title: str) -> None:
        """Begin the next step."""
        self._number += 1
        self._title = title
        self._since = self._said = self.clock()
        self._print(f"[{self._number}/{self.steps}] {title}")

    def note(self, text: str) -> None:
        """A remark below the step's heading."""
        self._print(f"      {text}")

    def wait(self, job: Job, *, beside: Job | None = None) -> None:
        """Watch a command until it ends; raises `StepFailed` if it ends with another status than 0."""
        self.watch(job, beside=beside)
        if job.status != 0:
            raise job.failure(self._title)

    def watch(
        self, job: Job, *, beside: Job | None = None, enough: Callable[[Job], bool] = lambda job: False
    ) -> None:
        """Watch a command until it ends, whatever its status, or stop it as soon as `enough(job)` holds."""
        try:
            while job.status is None and not enough(job):
                self._tick(job, beside)
                time.sleep(0.1)
        finally:
            job.stop()
            self._clear()

    def _tick(self, job: Job, beside: Job | None) -> None:
        now = self.clock()
        if not self._live and now - self._said < SECONDS_BETWEEN_LINES:
            return
        self._said = now
        text = f"      {_minutes(now - self._since)}  {job.last_line()}"
        if beside is not None and beside.status is None:
            text += f"  | beside it: {beside.last_line()}"
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write("\r\x1b[K" + text[:width])
            sys.stdout.flush()
        else:
            print(text[:200], flush=True)

    def _clear(self) -> None:
        if self._live:
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()

    def done(self, what: str) -> None:
        """The last line, with the time it all took."""
        self._print(f"{what} ({_minutes(self.clock() - self.started)})")

    def _print(self, text: str) -> None:
        self._clear()
        print(text, flush=True)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
