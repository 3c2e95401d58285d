"""What each request uses, from its admission to its end: its row in the ledger, its part of its key's limits.

Right means: a request that the engine was asked to run has exactly one row, whichever way it ends; that row
says what the answer's `usage` says; it is durable before the answer's last byte is sent; and what the request
did not use of its key's tokens comes back. A request that is refused before it runs costs nothing and leaves
no row: whoever is refused a thousand times a second must not fill the disk (`/metrics` counts refusals).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from labsupport.engine.messages import Delta
from labsupport.server.answers import Counted, usage_of
from labsupport.server.errors import ApiError
from labsupport.server.key_limits import Grant, KeyLimits
from labsupport.server.ledger import Ledger
from labsupport.server.ledger_file import Row


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be accounted.

    id: the answer's own. arrived: on the monotonic clock, in seconds.
    prompt_lengths: in tokens, for each sequence, `choices_per_prompt` in a row for the same prompt.
    most_tokens: prompts (each once) and longest completions (each) together.
    """

    id: str
    key: str
    route: str
    model: str
    arrived: float
    prompt_lengths: Sequence[int]
    choices_per_prompt: int
    most_tokens: int


class Accounts:
    """Opens an account for each request. `ledger` None keeps no rows."""

    def __init__(self, ledger: Ledger | None, limits: KeyLimits) -> None:
        self._ledger = ledger
        self._limits = limits

    @contextlib.contextmanager
    def open(self, request: Request) -> Iterator[Account]:
        """The request's account for the block, which runs it. What the block does not close is an abort.

        Raises ApiError before the block: 503 while the ledger cannot be written; 400 or 429 for the limits.
        """
        if self._ledger and (trouble := self._ledger.trouble):
            raise ApiError(
                503,
                f"The usage ledger cannot be written ({trouble}), so nothing is run until it can.",
                code="ledger_unavailable",
                retry_after_seconds=1,
            )
        with self._limits.admit(request.key, request.most_tokens) as grant:
            account = Account(request, self._ledger, grant)
            try:
                yield account
            except Exception:
                account.post("error", "internal_error")
                raise
            finally:
                account.post("abort")


class Account:
    """The account of one request that runs."""

    def __init__(self, request: Request, ledger: Ledger | None, grant: Grant) -> None:
        self._ledger = ledger
        self._grant = grant
        self._choices_per_prompt = request.choices_per_prompt
        self._counts = [Counted(length) for length in request.prompt_lengths]
        self._epoch = time.time() - time.monotonic()  # so that differences are the monotonic clock's
        self._first_token_at: float | None = None
        self._is_closed = False
        self._row = Row(
            id=request.id,
            key=request.key,
            route=request.route,
            model=request.model,
            arrived_at=self._epoch + request.arrived,
        )
        if ledger:
            ledger.post(self._row)

    def saw(self, index: int, delta: Delta) -> None:
        """Count what one delta of one sequence brought."""
        self._counts[index].count(delta)
        if delta.tokens and self._first_token_at is None:
            self._first_token_at = self._now()

    async def finish(self) -> None:
        """Close the account of an answer that is complete; its row is durable on return."""
        await self._write(",".join(dict.fromkeys(count.finish_reason for count in self._counts)))

    async def fail(self, error: str) -> None:
        """Close the account of a request that failed with this code; its row is durable on return."""
        await self._write("error", error)

    def post(self, finish_reason: str, error: str | None = None) -> None:
        """Close the account, if it is open, without waiting for the disk."""
        row = self._close(finish_reason, error)
        if self._ledger and row:
            self._ledger.post(row)

    async def _write(self, finish_reason: str, error: str | None = None) -> None:
        row = self._close(finish_reason, error)
        if self._ledger and row:
            await self._ledger.write(row)

    def _close(self, finish_reason: str, error: str | None) -> Row | None:
        if self._is_closed:
            return None
        self._is_closed = True
        usage = usage_of(self._counts, choices_per_prompt=self._choices_per_prompt)
        self._grant.used_tokens = usage.total_tokens
        return msgspec.structs.replace(
            self._row,
            first_token_at=self._first_token_at,
            finished_at=self._now(),
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.prompt_tokens_details.cached_tokens,
            completion_tokens=usage.completion_tokens,
            finish_reason=finish_reason,
            error=error,
        )

    def _now(self) -> float:
        return self._epoch + time.monotonic()
