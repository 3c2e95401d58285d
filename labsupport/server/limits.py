"""How much one request may weigh, and how many may wait, however many or hostile the clients are."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labsupport.server.errors import ApiError, bad_request

LONGEST_RETRY_SECONDS = 60
"""In a `Retry-After`. Where it is over two minutes, the `openai` client does not come again at all."""


class Places:
    """Places that are held for a while, and an estimate of when the next ones come free.

    If places were lately held for D seconds each, and N are held, then one of them comes free every D / N
    seconds (Little's law).
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.taken = 0
        self._clock = clock
        self._typical_stay_seconds = 0.0

    def lacking(self, places: int) -> int:
        """How many more places than there are would be held if `places` were taken now; 0 if they fit."""
        return max(0, self.taken + places - self.limit)

    def seconds_until_free(self, places: int) -> int:
        """An estimate, in whole seconds and at least 1, of when so many of those held come free."""
        return max(1, math.ceil(places * self._typical_stay_seconds / max(self.taken, 1)))

    @contextmanager
    def hold(self, places: int) -> Iterator[None]:
        """Take `places` for the block, whether or not there are so many."""
        self.taken += places
        begin = self._clock()
        try:
            yield
        finally:
            self.taken -= places
            # a moving average over about the last five
            self._typical_stay_seconds += (self._clock() - begin - self._typical_stay_seconds) / 5


class Admission(Places):
    """A count of the sequences in hand, running and waiting together, and the most that there may be.

    What is over the limit is refused at once with 429 and Retry-After: a queue without a bound turns overload
    into time-outs for everybody. Who is refused is told to come when a place should be free after all those
    that were refused before and have not come yet; if all were told the same time, all but one would come for
    nothing, again and again, and answering them takes time of those who were let in. `prompt_token_limit`
    bounds the tokens of their prompts as well, because a short queue of long prompts is a long wait; a
    request that finds nothing in hand is let in all the same.
    """

    def __init__(
        self,
        limit: int,
        prompt_token_limit: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(limit, clock=clock)
        self.prompt_tokens = Places(prompt_token_limit or 0, clock=clock)
        # When those come again who were refused, and for how many places. Of a flood only so many count.
        self._expected: deque[tuple[float, int]] = deque(maxlen=limit)

    def check(self, sequences: int, prompt_tokens: int = 0) -> None:
        """Raise ApiError if so many more are too many: 400 if never possible, 429 if not now."""
        if sequences > self.limit:
            raise bad_request(
                f"{sequences} sequences (n × prompts) asked in one request; the limit here is {self.limit}.",
                param="n",
                code="too_many_sequences",
            )
        if lacking := self.lacking(sequences):
            raise _full(
                f"{self.taken} of {self.limit} sequences in hand, {sequences} more asked",
                self._seconds_until_due(sequences, lacking),
            )
        tokens = self.prompt_tokens
        if tokens.limit and self.taken and (lacking := tokens.lacking(prompt_tokens)):
            raise _full(
                f"{tokens.taken} of {tokens.limit} prompt tokens in hand, {prompt_tokens} more asked",
                tokens.seconds_until_free(lacking),
            )

    def _seconds_until_due(self, sequences: int, lacking: int) -> int:
        now = self._clock()
        ahead = min(sum(places for due, places in self._expected if due > now), self.limit)
        seconds = min(self.seconds_until_free(lacking + ahead), LONGEST_RETRY_SECONDS)
        self._expected.append((now + seconds, sequences))
        return seconds

    @contextmanager
    def admit(self, sequences: int, prompt_tokens: int = 0) -> Iterator[None]:
        """Hold that much for the block. Raises ApiError as `check` does."""
        self.check(sequences, prompt_tokens)
        with self.hold(sequences), self.prompt_tokens.hold(prompt_tokens):
            yield


def _full(why: str, retry_after_seconds: int) -> ApiError:
    return ApiError(
        429, f"The queue is full: {why}.", code="queue_full", retry_after_seconds=retry_after_seconds
    )


class BodyLimit:
    """ASGI middleware: 413 to a body over `limit_bytes`, declared or chunked, without reading it whole.

    of_paths: other limits, of some routes.
    A body that has not arrived `limit_seconds` after its headers gets a 408: a client that sends half of one
    and falls silent would hold its connection for ever.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit_bytes: int,
        limit_seconds: float = 30.0,
        of_paths: Mapping[str, int] | None = None,
    ) -> None:
        self.app = app
        self.limit_bytes = limit_bytes
        self.of_paths = of_paths or {}
        self.limit_seconds = limit_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = self.of_paths.get(scope["path"], self.limit_bytes)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > most:
            message = f"The request body has {declared} bytes; this server reads at most {most}."
            refusal = ApiError(413, message, code="body_too_large")
            # The unread body would be taken for the next request on this connection.
            close = {"Connection": "close"}
            await JSONResponse(refusal.body, status_code=413, headers=close)(scope, receive, send)
            return
        read_bytes, complete = 0, False
        deadline = asyncio.get_running_loop().time() + self.limit_seconds

        async def counted() -> Message:
            nonlocal read_bytes, complete
            if complete:  # what comes now is the news that the client has gone, whenever that may be
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                detail = f"The request body did not arrive within {self.limit_seconds:g} s; send it again."
                raise HTTPException(408, detail) from None
            complete = not message.get("more_body", False)
            read_bytes += len(message.get("body", b""))
            if read_bytes > most:
                raise HTTPException(413)
            return message

        await self.app(scope, counted, send)
