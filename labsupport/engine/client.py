"""The asynchronous handle to the engine process: start it, talk to it, and bring it back when it dies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import Delta, Integrity, Ready, SamplingParams, StepReport
from labsupport.errors import LabsupportError


class EngineFailed(LabsupportError):
    """The engine could not start (no such model, a damaged file, too little memory)."""


class EngineDied(LabsupportError):
    """The engine process ended while the request ran; it is being restarted, so a retry can work."""


class RequestRefused(LabsupportError):
    """A request that this engine can never run (prompt too long, unknown token, impossible parameter)."""


class EngineClient:
    """One engine process, supervised. Use from one event loop.

    info: what the engine runs on and can do (of the latest start).
    last_report: the newest step report, None before the first.
    """

    info: Ready
    last_report: StepReport | None

    @classmethod
    async def start(cls, config: EngineConfig) -> EngineClient:
        """Start the process and wait until it has loaded and warmed up. Raises EngineFailed, ConfigRefused."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Whether the engine is up and was heard within the last few seconds."""
        raise NotImplementedError

    @property
    def restarts(self) -> int:
        """How often the engine process has been restarted since `start`."""
        raise NotImplementedError

    def check(self, tokens: Sequence[int], params: SamplingParams) -> None:
        """Raise RequestRefused if this request could never run; call before opening a stream."""
        raise NotImplementedError

    def generate(
        self,
        tokens: Sequence[int],
        params: SamplingParams,
        *,
        request_id: str,
        priority: int = 0,
        key: str = "",
    ) -> AsyncIterator[Delta]:
        """Run a prompt and yield its deltas; the last one has `finish_reason`.

        Closing or cancelling the iteration aborts the request in the engine. Raises RequestRefused before
        anything runs, EngineDied when the process ends meanwhile or is not up.
        """
        raise NotImplementedError

    async def inspect(self, *, timeout_seconds: float = 10.0) -> Integrity:
        """Ask the engine for its invariants and its queue. Raises EngineDied."""
        raise NotImplementedError

    async def close(self) -> None:
        """End the process and whatever still runs in it. Safe to repeat."""
        raise NotImplementedError
