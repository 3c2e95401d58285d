"""Writing the usage ledger while requests are served: off the event loop, many rows to a commit.

Right means: a row that `write` has returned for is on the disk, unless the disk refused or did not answer,
and then nothing is lost silently. What is not written is kept in memory and tried again every second, and is
printed to the log at once, in case this process does not live to see it written. While rows wait so,
`trouble` says why, and new requests are answered 503 (`accounts` says why that); those in progress go out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from labsupport.server import ledger_file
from labsupport.server.ledger_file import Row

RETRY_SECONDS = 1.0
PATIENCE_SECONDS = 5.0
"""A row that waits longer than this for the disk is trouble, and no answer waits for it any longer."""

logger = logging.getLogger("labsupport.server")

Waiter = asyncio.Future[None]


class _Posted(NamedTuple):
    row: Row
    waiter: Waiter | None
    at: float  # on the monotonic clock


class Ledger:
    """A ledger that one server writes. Use it in a `with` block: leaving it writes what is left.

    One thread commits whatever has come in since its last commit, in one transaction (a group commit), so the
    number of requests per second is not bounded by how often the disk can flush.

    failures: commits that the disk refused, each new try of the same rows included.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises ledger_file.LedgerError."""
        self.path = path
        self._connection = ledger_file.open_for_writing(path)
        self._inbox: queue.SimpleQueue[_Posted | None] = queue.SimpleQueue()
        self.failures = 0
        self._refusal = ""
        self._waiting_since: float | None = None
        self._in_hand: tuple[Row, ...] = ()
        """What the thread is writing, for whoever must know if it never comes back."""
        # A daemon, because a disk that hangs for ever must not keep the process alive.
        self._thread = threading.Thread(target=self._write_all, name="ledger", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._inbox.put(None)
        self._thread.join(PATIENCE_SECONDS)
        if self._thread.is_alive():
            logger.error("the ledger %s: left without the disk's answer", self.path)
            more = self._take(wait_seconds=0)[0]
            for row in [*self._in_hand, *(one.row for one in more)]:
                if row.finish_reason:
                    _print(row)

    @property
    def trouble(self) -> str:
        """Why rows cannot be written now; "" while they can."""
        if not self._refusal and self.lag_seconds > PATIENCE_SECONDS:
            return f"the disk has not answered for {PATIENCE_SECONDS:g} s"
        return self._refusal

    @property
    def lag_seconds(self) -> float:
        """How long the oldest row in hand has waited to be written; 0 if none waits."""
        since = self._waiting_since
        return 0.0 if since is None else time.monotonic() - since

    def post(self, row: Row, waiter: Waiter | None = None) -> None:
        """Have `row` written soon; a later row with the same id takes its place."""
        self._inbox.put(_Posted(row, waiter, time.monotonic()))

    def submit(self, row: Row) -> Waiter:
        """Post `row`, for `settle` to wait for."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self.post(row, waiter)
        return waiter

    async def write(self, row: Row) -> None:
        """Post `row` and return once it is settled."""
        await self.settle(row, self.submit(row))

    async def settle(self, row: Row, waiter: Waiter) -> None:
        """Return once `row` is durable, or the disk has refused it, or patience is at its end."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await waiter
        except TimeoutError:
            _print(row)

    # The thread

    def _write_all(self) -> None:
        unwritten: dict[str, Row] = {}
        is_open = True
        while is_open:
            posted, is_open = self._take(wait_seconds=RETRY_SECONDS if unwritten else None)
            if posted and not unwritten:
                self._waiting_since = posted[0].at
            news = {one.row.id: one.row for one in posted}
            unwritten |= news
            self._in_hand = tuple(unwritten.values())
            try:
                ledger_file.write(self._connection, unwritten.values())
            except Exception as error:  # whatever it is, this thread goes on and the trouble is seen
                self._note_refusal(str(error), news)
            else:
                self._note_success(len(unwritten))
                unwritten.clear()
                self._in_hand = ()
                self._waiting_since = None
            _release([one.waiter for one in posted if one.waiter])
        if unwritten:
            logger.error("the ledger %s lacks %d rows; the lines above have them", self.path, len(unwritten))
        self._connection.close()

    def _take(self, *, wait_seconds: float | None) -> tuple[list[_Posted], bool]:
        """All that has come in, and whether more can come; waits for the first, for so long at most."""
        posted: list[_Posted] = []
        with contextlib.suppress(queue.Empty):
            item = self._inbox.get(timeout=wait_seconds)
            while item is not None:
                posted.append(item)
                item = self._inbox.get_nowait()
            return posted, False
        return posted, True

    def _note_refusal(self, reason: str, news: dict[str, Row]) -> None:
        self.failures += 1
        if not self._refusal:
            logger.error("the ledger %s cannot be written: %s. New requests are refused", self.path, reason)
        self._refusal = reason
        for row in news.values():
            if row.finish_reason:
                _print(row)

    def _note_success(self, rows: int) -> None:
        if self._refusal:
            logger.info("the ledger %s is written again, with the %d rows that waited", self.path, rows)
        self._refusal = ""


def _print(row: Row) -> None:
    logger.error("not in the ledger yet: %s", msgspec.json.encode(row).decode())


def _release(waiters: list[Waiter]) -> None:
    def release() -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    if waiters:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            waiters[0].get_loop().call_soon_threadsafe(release)
