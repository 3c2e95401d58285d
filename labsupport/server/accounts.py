"""What each request uses, from its admission to its end: its place, its key's limits, its row in the ledger.

Right means: a request that was admitted and booked has exactly one row, whichever way it ends. The row is
durable before the answer's first byte is sent, so that nobody has anything of which the books know nothing;
it says what the answer's `usage` says, or that nobody knows, and does so before the last byte. What the
request did not use of its key's tokens comes back, but for its prompt's, however early its client leaves.
A request that is refused here costs nothing and leaves no row: who is refused a thousand times a second must
not fill the disk (`/metrics` counts refusals). One that was admitted and is refused before it is booked, for
its schema, leaves no row either, but has been one of its key's requests of that minute: it had to be read.

While the ledger cannot be written, new requests are refused: the books go before availability. An answer that
nobody can be billed for is paid all the same, by whoever runs the GPU or has the account with the upstream,
and it can be asked for without end; a refusal is seen at once, by the client and by the load balancer that
asks `/health/ready`, and is over when the disk is. Answers in progress go out: they have been paid for, and
their rows are kept in memory and in the log. Who would rather have it the other way leaves out `--ledger`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import msgspec

from labsupport.server.errors import ApiError
from labsupport.server.key_limits import Grant, KeyLimits
from labsupport.server.ledger import Ledger
from labsupport.server.ledger_file import Row
from labsupport.server.limits import Admission
from labsupport.server.meter import Meter
from labsupport.server.usage import Usage


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be admitted and accounted.

    id: the answer's own. arrived: on the monotonic clock, in seconds.
    sequences: choices of all prompts together.
    prompt_tokens: each prompt once; 0 where nobody here can count them.
    most_tokens: prompts (each once) and longest completions (each) together.
    is_unbounded: nothing limits its completions, and `most_tokens` is of the prompts alone.
    """

    id: str
    key: str
    route: str
    model: str
    arrived: float
    sequences: int
    most_tokens: int
    prompt_tokens: int = 0
    is_unbounded: bool = False


class Accounts:
    """Admits requests and opens an account for each. `ledger` None keeps no rows."""

    def __init__(self, admission: Admission, ledger: Ledger | None, limits: KeyLimits) -> None:
        self._admission = admission
        self._ledger = ledger
        self._limits = limits

    def headers(self, key: str) -> dict[str, str]:
        """What an answer's headers say about the limits of its key."""
        return self._limits.headers(key)

    def check(self, sequences: int, key: str) -> None:
        """Raise ApiError for what stands in the way of so many, whatever their prompts turn out to be.

        Ask before those cost anything: it holds nothing, so `admit` asks again.
        """
        self._admission.check(sequences)
        self._refuse_unwritable()
        self._limits.check(key)

    @contextlib.contextmanager
    def admit(self, request: Request) -> Iterator[Grant]:
        """Hold the request's places in the queue and of its key, and its key's tokens, for the block.

        Raises ApiError before the block: 400 or 429 for the queue's limits or the key's, 503 while the ledger
        cannot be written.
        """
        # First, so that whom a full queue refuses has used nothing of its key's limits.
        self._admission.check(request.sequences, request.prompt_tokens)
        self._refuse_unwritable()
        with (
            self._limits.admit(request.key, request.most_tokens, is_unbounded=request.is_unbounded) as grant,
            self._admission.admit(request.sequences, request.prompt_tokens),
        ):
            yield grant

    @contextlib.asynccontextmanager
    async def book(self, request: Request, grant: Grant, meter: Meter) -> AsyncIterator[Account]:
        """The account of an admitted request for the block, which does the work and finishes the account.

        An ApiError of the block is written down as its failure, any other exception as a mistake of ours,
        and a block that is left without a word, by whoever cancels it, as an abort.
        """
        account = Account(request, self._ledger, grant, meter)
        reason = "abort"
        try:
            yield account
            reason = "other"
        except ApiError as error:
            reason = "error"
            await account.fail(str(error.code))
            raise
        except Exception:
            reason = "error"
            account.post("error", "internal_error")
            raise
        finally:
            account.post("abort")
            meter.end(reason)

    @contextlib.asynccontextmanager
    async def open(self, request: Request, meter: Meter) -> AsyncIterator[Account]:
        """`admit` and `book` in one, for a request with nothing to do between the two."""
        with self.admit(request) as grant:
            async with self.book(request, grant, meter) as account:
                yield account

    def _refuse_unwritable(self) -> None:
        if self._ledger and (trouble := self._ledger.trouble):
            raise ApiError(
                503,
                f"The usage ledger cannot be written ({trouble}), so nothing is run until it can.",
                code="ledger_unavailable",
                retry_after_seconds=1,
            )


class Account:
    """The account of one request that was admitted."""

    def __init__(self, request: Request, ledger: Ledger | None, grant: Grant, meter: Meter) -> None:
        self._ledger = ledger
        self._grant = grant
        self._meter = meter
        self._epoch = time.time() - time.monotonic()  # so that differences are the monotonic clock's
        self._is_closed = False
        self._least_tokens = request.prompt_tokens
        self._row = Row(
            id=request.id,
            key=request.key,
            route=request.route,
            model=request.model,
            arrived_at=self._epoch + request.arrived,
        )
        self._opening = ledger.submit(self._row) if ledger else None

    async def is_recorded(self) -> None:
        """Return once the row of a request that runs is durable; after a refusal of the disk, too."""
        if self._ledger and self._opening:
            opening, self._opening = self._opening, None
            await self._ledger.settle(self._row, opening)

    async def finish(self) -> None:
        """Close the account of an answer that is complete; its row is durable on return."""
        await self._write(",".join(dict.fromkeys(reason or "other" for reason in self._meter.finish_reasons)))

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
        usage, first_token_at = self._meter.usage, self._meter.first_token_at
        if usage is not None:
            # Who leaves before a first token may have left a prompt that was computed, or nearly so.
            least = self._least_tokens if finish_reason == "abort" else 0
            self._grant.used_tokens = max(usage.total_tokens, least)
        else:
            self._grant.used_tokens = None
        return msgspec.structs.replace(
            self._row,
            first_token_at=None if first_token_at is None else self._epoch + first_token_at,
            finished_at=self._epoch + time.monotonic(),
            finish_reason=finish_reason,
            error=error,
            **({} if usage is None else _tokens(usage)),
        )


def _tokens(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.prompt_tokens_details.cached_tokens,
        "completion_tokens": usage.completion_tokens,
    }
