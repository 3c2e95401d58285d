"""The conversation with a sandbox: run the notebook once, ask about every exercise, survive whatever happens.

A cell or a call that kills its process, or will not end, costs only itself: a new sandbox is started,
without that cell, and the remaining exercises are asked there. Everything that comes back is taken as a
claim: it is parsed, bounded and rebuilt before anybody looks at it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from labsupport.grading import sandbox
from labsupport.grading.exercise import Case, Exercise, Lab
from labsupport.grading.inside.plain import NotPlainError, as_plain, to_wire
from labsupport.grading.replies import Asked, Missing, NotPlain, Raised, Reply, Returned, Stopped, drawn

GRACE_SECONDS = 5.0  # beyond the limit that the sandbox's own alarm keeps, for a busy machine
START_SECONDS = 30.0  # for Python and IPython to come up on a busy machine
LONGEST_LINE_BYTES = 16 * 2**20
MOST_RESTARTS = 8
EXHAUSTION = ("raised MemoryError", "[Errno 12]", "[Errno 28]")  # no memory or space left for the others


class StoppedError(Exception):
    """The process in the sandbox is gone; the text completes "the code of cell 3 …"."""


@dataclass(frozen=True)
class Cell:
    """A code cell: its place among the notebook's code cells, counted from 1, and its source."""

    number: int
    source: str


@dataclass
class Outcome:
    """What a submission's notebook did: replies per exercise, and one line per incident."""

    replies: dict[str, list[Asked]] = field(default_factory=dict)
    incidents: list[str] = field(default_factory=list)


def interrogate(lab: Lab, cells: Sequence[Cell], seed: int) -> Outcome:
    """Run the cells in a sandbox and ask every exercise's cases, drawn for `seed`."""
    return _Session(lab, cells, seed).outcome()


class _Session:
    def __init__(self, lab: Lab, cells: Sequence[Cell], seed: int) -> None:
        self.lab, self.cells, self.seed = lab, list(cells), seed
        self.deadline = time.monotonic() + lab.limits.seconds_total
        self.result = Outcome()
        self.restarts = 0

    def outcome(self) -> Outcome:
        remaining = list(self.lab.exercises)
        while remaining:
            why = ""
            if time.monotonic() > self.deadline:
                seconds = self.lab.limits.seconds_total
                why = f"the time for the whole notebook ({seconds:g} s) was used up before"
            elif self.restarts > MOST_RESTARTS:
                why = "the notebook had to be started anew too often before"
            if why:
                self._give_up(remaining, why)
                break
            self.restarts += 1
            with _Conversation(self.lab, self.deadline) as talk:
                if self._prepare(talk):
                    self._ask_all(talk, remaining)
        return self.result

    def _prepare(self, talk: _Conversation) -> bool:
        """Run the cells; on a stop, leave out the cell that did it and say so."""
        try:
            errors = talk.run(self.cells)
        except StoppedError as stopped:
            culprit = talk.running
            if culprit is None and time.monotonic() > self.deadline:
                return False  # no time was left even to start again
            if culprit is None:
                raise  # not the student's doing: the sandbox itself did not come up
            self.result.incidents.append(f"Cell {culprit}: {stopped}. It was left out.")
            self.cells = [cell for cell in self.cells if cell.number != culprit]
            return False
        exhausted = set()
        for number, text in errors:
            if any(sign in text for sign in EXHAUSTION):
                exhausted.add(number)
                text += ". It was left out"
            line = f"Cell {number}: {text}."
            if line not in self.result.incidents:
                self.result.incidents.append(line)
        self.cells = [cell for cell in self.cells if cell.number not in exhausted]
        return not exhausted

    def _ask_all(self, talk: _Conversation, remaining: list[Exercise]) -> None:
        """Ask until nothing remains or the process is gone; what stopped once is not asked of again."""
        while remaining and not talk.closed:
            exercise = remaining.pop(0)
            asked: list[Asked] = []
            stopped: Stopped | None = None
            for case in drawn(exercise, self.seed):
                reply: Reply = stopped or talk.ask_or_stop(exercise.name, case)
                if isinstance(reply, Stopped) and stopped is None:
                    stopped = reply
                    self.result.incidents.append(f"Exercise {exercise.name}: {reply.why}.")
                asked.append(Asked(case, reply))
            self.result.replies[exercise.name] = asked

    def _give_up(self, remaining: list[Exercise], why: str) -> None:
        for exercise in remaining:
            cases = drawn(exercise, self.seed)
            self.result.replies[exercise.name] = [
                Asked(case, Stopped(f"was not called: {why}")) for case in cases
            ]
            self.result.incidents.append(f"Exercise {exercise.name}: not asked, because {why}.")


class _Conversation:
    """One sandboxed process, and lines of JSON to and from it."""

    def __init__(self, lab: Lab, deadline: float) -> None:
        self.limits, self.deadline = lab.limits, deadline
        self.process = sandbox.start(lab)
        self.running: int | None = None
        self.closed = False
        self._said, self._printed = bytearray(), 0
        self._selector = selectors.DefaultSelector()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ)

    def __enter__(self) -> _Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and everything in its sandbox."""
        self.closed = True
        self.process.kill()
        self.process.wait()
        self._selector.close()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(
                    OSError
                ):  # something was still to be written to a process that is gone
                    stream.close()

    def run(self, cells: Sequence[Cell]) -> list[tuple[int, str]]:
        """Run the cells; the number and error of each that raised. `StoppedError` if the process ends."""
        orders = {"cells": [[cell.number, cell.source] for cell in cells], "limits": asdict(self.limits)}
        errors: list[tuple[int, str]] = []
        self._send(orders, START_SECONDS)
        seconds = START_SECONDS
        while True:
            message = self._receive(seconds)
            seconds = self.limits.seconds_per_cell + GRACE_SECONDS
            if message.get("ready") is True:
                self.running = None
                return errors
            if type(message.get("running")) is int:
                self.running = message["running"]
            elif message.get("error") and self.running is not None:
                name, text = _error(message["error"])
                if name == "TimeUpError":
                    errors.append(
                        (self.running, f"still running after {self.limits.seconds_per_cell:g} s, stopped")
                    )
                elif name != "NotImplementedError":
                    errors.append((self.running, f"raised {name}: {text}" if text else f"raised {name}"))

    def ask_or_stop(self, function: str, case: Case) -> Reply:
        """One call; `Stopped` if it does not come back, and then the conversation may be over."""
        try:
            return self._ask(function, case)
        except StoppedError as stopped:
            return Stopped(str(stopped))

    def _ask(self, function: str, case: Case) -> Reply:
        arguments = [to_wire(argument) for argument in case.arguments]
        self._send({"function": function, "arguments": arguments}, self.limits.seconds_per_call)
        # the sandbox's alarm runs twice: for the call, and for taking its answer apart
        return self._reply(self._receive(2 * self.limits.seconds_per_call + GRACE_SECONDS))

    def _reply(self, message: dict[str, Any]) -> Reply:
        if message.get("missing"):
            return Missing()
        if "raised" in message:
            name, text = _error(message["raised"])
            if name == "TimeUpError":
                return Stopped(f"was still running after {self.limits.seconds_per_call:g} s and was stopped")
            return Raised(name, text)
        if "not_plain" in message:
            return NotPlain(str(message["not_plain"])[:200])
        try:
            return Returned(as_plain(message.get("returned")))
        except NotPlainError as error:
            return NotPlain(str(error))

    def _send(self, message: dict[str, Any], seconds: float) -> None:
        """Write a line without waiting for ever on a process that does not read."""
        assert self.process.stdin is not None
        data = memoryview(json.dumps(message).encode() + b"\n")
        os.set_blocking(self.process.stdin.fileno(), False)
        until = min(time.monotonic() + seconds + GRACE_SECONDS, self.deadline)
        while data:
            try:
                written = self.process.stdin.write(data)
                data = data[written or 0 :]
            except BlockingIOError:
                written = None
            except OSError:
                raise self._stopped(self._why_it_ended()) from None
            if not written:
                if time.monotonic() > until:
                    raise self._stopped("did not take its next question in time")
                self._listen(0.05)

    def _receive(self, seconds: float) -> dict[str, Any]:
        until = min(time.monotonic() + seconds, self.deadline)
        while b"\n" not in self._said:
            left = until - time.monotonic()
            if left <= 0:
                raise self._stopped(f"did not end within {seconds:g} s and was stopped")
            if not self._listen(left):
                raise self._stopped(self._why_it_ended())
        line, _, rest = bytes(self._said).partition(b"\n")
        self._said = bytearray(rest)
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise self._stopped("wrote into the grader's own channel and was stopped")
        return message

    def _listen(self, seconds: float) -> bool:
        """Take in what has been said and printed within `seconds`; False once the process has hung up."""
        for key, _ in self._selector.select(seconds):
            chunk = os.read(key.fd, 2**16)
            if key.fileobj is self.process.stdout:
                if not chunk:
                    return False
                self._said += chunk
                if len(self._said) > LONGEST_LINE_BYTES:
                    raise self._stopped("returned more than can be judged and was stopped")
            elif chunk:
                self._printed += len(chunk)
                if self._printed > self.limits.printed_bytes:
                    most = self.limits.printed_bytes / 2**20
                    raise self._stopped(f"printed more than {most:g} MiB and was stopped")
            else:
                self._selector.unregister(key.fileobj)
        return True

    def _why_it_ended(self) -> str:
        try:
            status = self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its connection to the grader and was stopped"
        if status in (128 + 9, 128 + 24, -9):
            return "was killed for using too much memory or processor time, or by itself"
        return f"ended the Python process (exit status {status})"

    def _stopped(self, why: str) -> StoppedError:
        self.close()
        return StoppedError(why)


def _error(value: Any) -> tuple[str, str]:
    """An exception's class and text as the sandbox reports them, bounded."""
    if isinstance(value, list) and len(value) == 2:
        return str(value[0])[:100], str(value[1])[:200]
    return "Exception", str(value)[:200]
