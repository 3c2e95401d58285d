"""The engine process: take messages, plan, step, commit, publish.

Right means: the loop below is all that happens, it never stops while there is work, it is heard from when
there is none, and the process is gone when whoever started it is gone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import threading
import time
from typing import Any

import msgspec
import zmq

from labsupport.engine.arrivals import Arrivals
from labsupport.engine.config import EngineConfig
from labsupport.engine.loading import load
from labsupport.engine.messages import (
    Abort,
    Delta,
    Failed,
    Fault,
    FinishReason,
    FromEngine,
    Inspect,
    Integrity,
    Ready,
    Shutdown,
    StepReport,
    Submit,
    ToEngine,
)
from labsupport.engine.observer import Observer
from labsupport.engine.plan import CellsExhausted, ReadsGrammars, Runner
from labsupport.engine.scheduler import Scheduler
from labsupport.engine.sequence import Sequence
from labsupport.engine.snapshot import Watch
from labsupport.engine.transcript import Transcripts
from labsupport.engine.validation import RequestRefused, refuse_impossible
from labsupport.errors import LabsupportError

HEARTBEAT_SECONDS = 0.5
"""How often an idle engine says that it is there."""


class Worker:
    """Scheduler and runner at one end of a socket."""

    def __init__(self, config: EngineConfig, runner: Runner, socket: zmq.Socket[bytes]) -> None:
        self._config = config
        self._runner = runner
        self._socket = socket
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToEngine)
        self._scheduler = Scheduler.for_config(config, runner)
        self._transcripts = Transcripts(self._scheduler, runner.piece)
        self._observer = Observer(self._scheduler)
        self._arrivals = Arrivals(runner.read_grammar if isinstance(runner, ReadsGrammars) else None)
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._arrivals, zmq.POLLIN)
        self._endings: list[Delta] = []  # of requests that ended outside a step: refused or aborted
        self._serial = 0
        self._leaving = False

    def run(self) -> None:
        """The loop. Ends with a `Shutdown`."""
        is_idle = False
        while not self._leaving:
            for message in self._take(wait_seconds=HEARTBEAT_SECONDS if is_idle else 0):
                self._handle(message)
            self._queue_ready()
            plan = self._scheduler.schedule(time.monotonic())
            try:
                drawn = self._runner.step(plan)
            except CellsExhausted:
                for sequence in self._scheduler.retreat(plan):
                    words = "the device has no room for this now, even alone"
                    self._end(sequence.request_id, "error", words, fault="room")
                continue
            progress = self._scheduler.commit(plan, drawn, time.monotonic())
            self._publish(self._report(self._transcripts.deltas(progress)))
            if snapshot := self._observer.after_step(plan, time.monotonic()):
                self._publish(snapshot)
            is_idle = not plan
        self._arrivals.close()

    # Messages in

    def _take(self, *, wait_seconds: float) -> list[ToEngine]:
        if wait_seconds:
            self._poller.poll(int(wait_seconds * 1000))
        messages: list[ToEngine] = []
        while int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            with contextlib.suppress(msgspec.MsgspecError):  # nobody to answer, and no reason to stop for it
                messages.append(self._decoder.decode(self._socket.recv()))
        return messages

    def _handle(self, message: ToEngine) -> None:
        match message:
            case Submit():
                self._submit(message)
            case Abort(request_id=request_id):
                is_coming = self._arrivals.forget(request_id)
                if self._scheduler.finish(request_id, "abort") or is_coming:
                    self._end(request_id, "abort")
            case Inspect(question_id=question_id):
                self._publish(self._integrity(question_id))
            case Watch():
                self._observer.watch(message, time.monotonic())
            case Shutdown():
                self._leaving = True

    def _submit(self, message: Submit) -> None:
        params = message.params
        self._serial += 1
        now = time.monotonic()
        try:
            refuse_impossible(message.tokens, params, self._scheduler.limits)
            sequence = Sequence(
                request_id=message.request_id,
                tokens=list(message.tokens),
                params=params,
                seed=secrets.randbits(63) if params.seed is None else params.seed,
                order=(now + message.priority * self._config.patience_seconds, self._serial),
                arrived=now,
                key=message.key,
                priority=message.priority,
            )
            if not self._arrivals.take(sequence):
                self._scheduler.submit(sequence)
        except RequestRefused as error:
            self._end(message.request_id, "error", str(error), fault="request")
        except ValueError as error:  # what the checks above should have found
            self._end(message.request_id, "error", str(error))

    def _queue_ready(self) -> None:
        """Queue the sequences whose grammars have been read by now.

        Asked for in every step: of one that was aborted meanwhile, nothing comes, but it has rung the bell.
        """
        for sequence, problem in self._arrivals.ready():
            if problem:
                self._end(sequence.request_id, "error", problem, fault="request")
                continue
            try:
                self._scheduler.submit(sequence)
            except ValueError as error:
                self._end(sequence.request_id, "error", str(error))

    # Messages out

    def _publish(self, message: FromEngine) -> None:
        self._socket.send(msgspec.msgpack.encode(message))

    def _report(self, deltas: list[Delta]) -> StepReport:
        scheduler, pool = self._scheduler, self._scheduler.pool
        counters, scheduler.counters = scheduler.counters, type(scheduler.counters)()
        endings, self._endings = self._endings, []
        for delta in (*endings, *deltas):
            if delta.finish_reason:
                self._arrivals.forget(delta.request_id)
        return StepReport(
            time=time.monotonic(),
            deltas=(*endings, *deltas),
            running=len(scheduler.running),
            waiting=len(scheduler.waiting) + len(self._arrivals.names),
            kv_used_cells=pool.num_used,
            kv_cached_cells=pool.num_cached,
            kv_total_cells=pool.num_cells,
            prompt_tokens=counters.prompt_tokens,
            generated_tokens=counters.generated_tokens,
            recomputed_tokens=counters.recomputed_tokens,
            prefix_query_tokens=counters.prefix_query_tokens,
            prefix_hit_tokens=counters.prefix_hit_tokens,
        )

    def _integrity(self, question_id: str) -> Integrity:
        scheduler = self._scheduler
        return Integrity(
            question_id=question_id,
            violations=tuple(scheduler.check_integrity()),
            running=len(scheduler.running),
            waiting=len(scheduler.waiting) + len(self._arrivals.names),
            used_cells=scheduler.pool.num_used,
            cached_cells=scheduler.pool.num_cached,
            total_cells=scheduler.pool.num_cells,
            sequences=(
                *(sequence.request_id for sequence in (*scheduler.running, *scheduler.waiting)),
                *self._arrivals.names,
            ),
        )

    def _end(
        self, request_id: str, reason: FinishReason, error: str = "", *, fault: Fault = "engine"
    ) -> None:
        """Say with the next report that a request has ended without a step."""
        self._transcripts.forget(request_id)
        self._endings.append(Delta(request_id=request_id, finish_reason=reason, error=error, fault=fault))


def main() -> None:
    """Start from `python -m labsupport.engine.worker ENDPOINT`, with the configuration on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent decides
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=EngineConfig)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
    socket.set(zmq.SNDHWM, 0)  # a reader that pauses must not stop the engine
    socket.set(zmq.LINGER, 1000)
    socket.connect(sys.argv[1])
    try:
        runner, ready = _load(config)
    except LabsupportError as error:
        socket.send(
            msgspec.msgpack.encode(Failed(problem=error.problem, remedy=error.remedy, allowed=error.allowed))
        )
        socket.close()
        sys.exit(1)
    socket.send(msgspec.msgpack.encode(ready))
    Worker(config, runner, socket).run()
    runner.close()


def _load(config: EngineConfig) -> tuple[Runner, Ready]:
    begin = time.monotonic()
    runner, chosen = load(config)
    return runner, Ready(
        pid=os.getpid(),
        engine=chosen.engine,
        device=chosen.device,
        reason=chosen.reason,
        context_tokens=runner.limits.context_tokens,
        max_sequences=config.slots,
        step_tokens=runner.limits.step_tokens,
        grammars=runner.limits.grammars,
        vocabulary_size=runner.limits.vocabulary_size,
        weights_bytes=runner.weights_bytes,
        kv_bytes=runner.kv_bytes,
        compute_bytes=runner.compute_bytes,
        load_seconds=time.monotonic() - begin,
        warm_up_seconds=runner.warm_up_seconds,
    )


def _leave_with_parent() -> None:
    """The parent holds the other end of standard input and never writes more: its end means the parent's."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
