"""A process of ours with a deadline: what it prints is taken line by line, and it ends when its time is up.

Right means: a line that was printed is never lost, whatever becomes of the process afterwards; and nothing
that it started outlives it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

_LAST_LINES = 12


def run_child(
    command: Sequence[str],
    *,
    seconds: float,
    log: Path,
    given: str = "",
    environment: dict[str, str] | None = None,
    on_line: Callable[[str], None] = print,
) -> str:
    """Run a command for at most so long; "" if it ended well, else what went wrong.

    given: its standard input. log: where its standard error is added. on_line gets each line of its output.
    """
    if seconds <= 0:
        return "no time was left for it"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as errors:
        errors.write(f"\n== {' '.join(command)}\n")
        errors.flush()
        begin = errors.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            start_new_session=True,
        )
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    deadline = threading.Timer(seconds, stop)
    deadline.start()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(given)
            process.stdin.close()
        for line in process.stdout:
            on_line(line.rstrip("\n"))
        status = process.wait()
    except BaseException:
        stop()
        process.wait()
        raise
    finally:
        deadline.cancel()
    if stopped.is_set():
        return f"it was ended after {seconds:.0f} s, when its time was up"
    return f"status {status}: {_last_words(log, begin)}" if status else ""


def _last_words(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").strip().splitlines()
    return "\n".join(lines[-_LAST_LINES:]) or "it said nothing"
