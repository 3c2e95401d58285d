"""Everybody who watches, and the one task that makes their frames.

Right means: a frame is made once, however many watch; a watcher who reads slowly misses frames and holds up
nobody; a stream that gets no more frames ends, and whoever comes again finds the next; and when the last
one has left, there is no task, no snapshot and no count any more.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable

import msgspec

from labsupport.engine.observer import MOST_STEPS_SHOWN
from labsupport.engine.snapshot import Snapshot, StepView
from labsupport.server.engine_link import EngineLink
from labsupport.server.errors import ApiError
from labsupport.server.metrics import Metrics
from labsupport.server.room.frame import Frame, event
from labsupport.server.room.last_minute import LastMinute
from labsupport.server.upstream.link import Upstream

QUIET_SECONDS = 0.15
"""The longest pause between two frames: a picture of at least five a second, with some to spare."""
LEASE_SECONDS = 4.0
RENEW_SECONDS = 1.0
MOST_WATCHERS = 64

logger = logging.getLogger("labsupport.server")


class Watcher:
    """One reader's place: only the newest frame waits there."""

    def __init__(self) -> None:
        self._newest = b""
        self._is_over = False
        self._news = asyncio.Event()

    def offer(self, frame: bytes, *, is_last: bool) -> None:
        """Put a frame in place of one that was not taken yet."""
        self._newest, self._is_over = frame, is_last
        self._news.set()

    def end(self) -> None:
        """Say that no more will come."""
        self._is_over = True
        self._news.set()

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The newest frame whenever there is another, up to the last."""
        is_over = False
        while not is_over:
            await self._news.wait()
            self._news.clear()
            is_over = self._is_over  # of the frame below: the last can come while this one is being read
            frame, self._newest = self._newest, b""
            if frame:
                yield frame


class Hub:
    """Frames of one server's engine. `is_leaving` says whether the server is shutting down."""

    def __init__(
        self,
        model: str,
        engine: EngineLink | Upstream,
        metrics: Metrics,
        *,
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self._model = model
        self._engine = engine
        self._metrics = metrics
        self._is_leaving = is_leaving
        self._watchers: set[Watcher] = set()
        self._telling: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._begin()

    async def watch(self) -> AsyncGenerator[bytes, None]:
        """Frames as server-sent events, until the server leaves or the room fails.

        Raises ApiError 503 if too many watch, or if it fails before the first frame.
        """
        if len(self._watchers) >= MOST_WATCHERS:
            raise ApiError(
                503,
                f"{MOST_WATCHERS} others are watching, which is as many as this server shows its engine to.",
                code="room_full",
                retry_after_seconds=10,
            )
        watcher, was_shown = Watcher(), False
        self._enter(watcher)
        try:
            async with contextlib.aclosing(watcher.frames()) as frames:
                async for frame in frames:
                    was_shown = True
                    yield frame
        finally:
            self._leave(watcher)
        if not was_shown:
            raise ApiError(
                503, "The engine room made a mistake; come again.", code="room_failed", retry_after_seconds=1
            )

    def _enter(self, watcher: Watcher) -> None:
        if self._telling is None or self._telling.done():
            self._begin()
            self._metrics.listener = self._minute
            self._telling = asyncio.create_task(self._tell(), name="engine room")
        self._watchers.add(watcher)

    def _leave(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        if not self._watchers and self._telling is not None:
            self._telling.cancel()
            self._telling = None
            self._metrics.listener = None
            if isinstance(self._engine, EngineLink):
                self._engine.watch(self._hear, seconds=0)
            self._begin()

    def _begin(self) -> None:
        """Know nothing yet."""
        self._minute = LastMinute(counts_usage=isinstance(self._engine, Upstream))
        self._snapshot: Snapshot | None = None
        self._steps: collections.deque[StepView] = collections.deque(maxlen=MOST_STEPS_SHOWN)

    def _hear(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._steps.extend(snapshot.steps)
        self._minute.tokens(generated=snapshot.generated_tokens, prompt=snapshot.prompt_tokens)
        self._news.set()

    async def _tell(self) -> None:
        """Make frames. If that fails, everybody's stream ends, and the next who comes starts it again."""
        try:
            await self._make_frames()
        except Exception:
            logger.exception("the engine room could not make a frame")
            for watcher in self._watchers:
                watcher.end()

    async def _make_frames(self) -> None:
        """One of every snapshot, and one at least every QUIET_SECONDS. The last says goodbye."""
        is_last, renewed = False, 0.0
        while not is_last:
            if isinstance(self._engine, EngineLink) and time.monotonic() - renewed > RENEW_SECONDS:
                renewed = time.monotonic()
                self._engine.watch(self._hear, seconds=LEASE_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIET_SECONDS):
                    await self._news.wait()
            self._news.clear()
            is_last = self._is_leaving()
            frame = event(self._frame("stopping" if is_last else self._engine.status))
            for watcher in self._watchers:
                watcher.offer(frame, is_last=is_last)

    def _frame(self, status: str) -> Frame:
        report = self._engine.last_report
        if not self._engine.ready:
            self._snapshot = None  # of an engine that is gone
            self._steps.clear()
        is_live = self._engine.ready and report is not None
        return Frame(
            model=self._model,
            status=status,
            has_engine=isinstance(self._engine, EngineLink),
            restarts=self._engine.restarts,
            running=report.running if is_live and report else 0,
            waiting=report.waiting if is_live and report else 0,
            engine=self._snapshot and msgspec.structs.replace(self._snapshot, steps=tuple(self._steps)),
            minute=self._minute.view(),
        )
