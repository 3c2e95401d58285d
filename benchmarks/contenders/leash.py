"""Run a command until it ends or standard input does, then leave nothing of it behind.

A benchmark that is killed cannot stop the servers that it started, and one that is left over would take the
cores from every later measurement. The pipe that this reads ends with its writer, however that dies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

PATIENCE_SECONDS = 15.0


def main(command: list[str]) -> int:
    """The command's exit status; 128 + signal if a signal ended it."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def end(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)

    def watch() -> None:
        # Not sys.stdin.read(): a thread that holds its lock at the end makes the interpreter abort.
        while os.read(sys.stdin.fileno(), 4096):
            pass
        end()
        try:
            child.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the benchmark, which then lets go
    threading.Thread(target=watch, daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
