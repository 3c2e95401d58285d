"""The program that runs inside the sandbox: it runs a notebook's cells, then answers calls.

One JSON object per line. In: the orders, then calls. Out: each cell as it begins and ends, `ready`, and one
reply per call. Whatever the student's code prints goes to standard error, whatever it does to this process
it does to itself: answers are judged outside, and a process that dies or lies is noticed there.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labsupport.grading.plain import NotPlainError, as_plain, from_wire  # type: ignore[import-not-found]

SCRATCH = Path("/tmp/inputs")


class TimeUpError(BaseException):
    """Raised in the student's code when its time is up; not an `Exception`, so that few catch it."""


def main() -> None:
    """Take orders and calls from standard input until it closes."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)

    def say(**message: Any) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    orders = json.loads(requests.readline())
    limit_resources(orders["limits"])
    signal.signal(signal.SIGALRM, time_is_up)
    shell = new_shell()
    for number, source in orders["cells"]:
        say(running=number)
        say(ran=number, error=run_cell(shell, source, orders["limits"]["seconds_per_cell"]))
    say(ready=True)
    for count, line in enumerate(requests):
        request = json.loads(line)
        seconds = orders["limits"]["seconds_per_call"]
        say(
            **answer(
                shell.user_ns.get(request["function"]), request["arguments"], SCRATCH / str(count), seconds
            )
        )


def limit_resources(limits: dict[str, Any]) -> None:
    """Hard limits on this process; they cannot be raised again."""
    cpu_seconds = int(limits["seconds_total"]) + 1
    for kind, most in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, limits["disk_bytes"]),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_NPROC, 128),  # threads, for whoever is not an administrator
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def time_is_up(*_: object) -> None:
    """The alarm's handler."""
    raise TimeUpError


def new_shell() -> Any:
    """An IPython shell, so that a notebook's own syntax works; without history, which would need a disk.

    It shows no tracebacks: nobody reads them here, and making one costs seconds on a busy machine.
    """
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    shell.showtraceback = shell.showsyntaxerror = lambda *_, **__: None
    return shell


def timed(seconds: float, action: Callable[[], Any]) -> Any:
    """What `action` returns; `TimeUpError` after `seconds`."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return action()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run_cell(shell: Any, source: str, seconds: float) -> list[str] | None:
    """Run one cell; `None`, or the exception's class and text."""
    try:
        result = timed(seconds, lambda: shell.run_cell(source, store_history=False))
        error = result.error_before_exec or result.error_in_exec
    except BaseException as raised:
        error = raised
    return None if error is None else described(error)


def described(error: BaseException) -> list[str]:
    """An exception's class and the first line of its text; its `__str__` may be the student's own."""
    if isinstance(error, TimeUpError):
        return ["TimeUpError", ""]
    try:
        lines = str(error).splitlines()
    except BaseException:
        lines = []
    return [str(type(error).__name__)[:100], (lines or [""])[0][:200]]


def answer(function: Any, wire: list[Any], folder: Path, seconds: float) -> dict[str, Any]:
    """One call, however it ends, as a reply that JSON can carry."""
    if not callable(function):
        return {"missing": True}
    try:
        arguments = [from_wire(argument, folder / str(place)) for place, argument in enumerate(wire)]
        returned = timed(seconds, lambda: function(*arguments))
        return {"returned": timed(seconds, lambda: as_plain(returned))}
    except NotPlainError as error:
        return {"not_plain": str(error)}
    except BaseException as error:
        return {"raised": described(error)}


if __name__ == "__main__":
    sys.path.insert(0, "")  # as a notebook has it: its own folder first
    main()
