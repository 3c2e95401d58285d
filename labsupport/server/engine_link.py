"""The server's hold on its engine: begin to load it, know whether it can be asked, let it go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable

from labsupport.engine.client import EngineClient
from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import StepReport
from labsupport.engine.process import EngineLoadsTooLong
from labsupport.engine.snapshot import Snapshot
from labsupport.errors import LabsupportError
from labsupport.server.errors import ApiError

PAUSE_SECONDS = 1.0
"""Between two attempts to load an engine that did not load in time."""

logger = logging.getLogger("labsupport.server")


class EngineLink:
    """An engine that is loading, ready, restarting or failed; never a surprise to the one who asks.

    failure: why it will never be ready, if it could not start at all.
    """

    def __init__(self, config: EngineConfig, *, on_failure: Callable[[], None]) -> None:
        self._config = config
        self._on_failure = on_failure
        self._client: EngineClient | None = None
        self._starting: asyncio.Task[None] | None = None
        self._trouble = ""
        self.failure: LabsupportError | None = None

    def begin(self) -> None:
        """Start the engine process in the background, so that health can be asked while weights load."""
        self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        while self._client is None:
            try:
                self._client = await EngineClient.start(self._config)
            except EngineLoadsTooLong as error:
                self._trouble = error.problem
                logger.warning("%s; it is started again", error.problem)
                await asyncio.sleep(PAUSE_SECONDS)
            except LabsupportError as error:
                self._fail(error)
                return
            except Exception as error:  # a server that loads for ever would tell nobody
                logger.exception("a mistake in starting the engine")
                self._fail(LabsupportError(f"the engine could not be started: {error!r}"))
                return
        info = self._client.info
        logger.info("engine %s on %s: %s", info.engine, info.device, info.reason)
        logger.info(
            "ready after %.1f s: %d slots, context of %d tokens, weights %.1f MiB, KV cache %.1f MiB",
            info.load_seconds,
            info.max_sequences,
            info.context_tokens,
            info.weights_bytes / 2**20,
            info.kv_bytes / 2**20,
        )

    def _fail(self, failure: LabsupportError) -> None:
        self.failure = failure
        self._on_failure()

    async def end(self) -> None:
        """Stop the engine, whatever it is doing. Safe to repeat."""
        if self._starting is not None:
            self._starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._starting
        if self._client is not None:
            await self._client.close()

    @property
    def ready(self) -> bool:
        return self._client is not None and self._client.ready

    @property
    def status(self) -> str:
        """`loading`, `ready` or `restarting`."""
        if self._client is None:
            return "loading"
        return "ready" if self._client.ready else "restarting"

    @property
    def trouble(self) -> str:
        """Why it is not ready, where more can be said than its status; "" otherwise."""
        return self._client.trouble if self._client else self._trouble

    @property
    def context_tokens(self) -> int | None:
        """The longest prompt and answer together; None while that is not known yet."""
        return self._client.info.context_tokens if self._client else None

    @property
    def restarts(self) -> int:
        return self._client.restarts if self._client else 0

    @property
    def last_report(self) -> StepReport | None:
        return self._client.last_report if self._client else None

    def watch(self, on_snapshot: Callable[[Snapshot], None], *, seconds: float) -> None:
        """As `EngineClient.watch`; nothing while there is no engine."""
        if self._client is not None:
            self._client.watch(on_snapshot, seconds=seconds)

    def require(self) -> EngineClient:
        """The client of an engine that is ready. Raises ApiError 503 with a time to try again."""
        if self._client is not None and self._client.ready:
            return self._client
        seconds = math.ceil(self._client.info.load_seconds) if self._client else 1
        raise ApiError(
            503,
            f"The engine is {self.status}; try again shortly.",
            code=f"engine_{self.status}",
            retry_after_seconds=max(seconds, 1),
        )
