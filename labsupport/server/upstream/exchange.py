"""One request, carried to the upstream and its answer back.

Right means: every event leaves as it comes, with our name for the model, our id for the answer and without
the usage that only we asked for; an answer that is not OpenAI's, or not whole, is an error and never passes
for one; and however the exchange ends, its place is given back and it is accounted for once, with what the
upstream said that it used, in an error too.

One event waits: that which completes the answer, until the next has come, which brings the usage. Many
clients hang up at `finish_reason`, and what they used would never be known.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from labsupport.server.accounts import Accounts, Request
from labsupport.server.errors import ApiError
from labsupport.server.streaming import DONE, event
from labsupport.server.upstream import errors, headers
from labsupport.server.upstream.config import CONTINUOUS_USAGE
from labsupport.server.upstream.event_parser import EventParser, EventTooLarge
from labsupport.server.upstream.link import Upstream, beginning
from labsupport.server.upstream.meter import UpstreamMeter

LARGEST_ANSWER_BYTES = 64 * 2**20
LARGEST_EVENT_BYTES = 8 * 2**20
LONGEST_GOODBYE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one request asks of the upstream.

    request: what its account needs to know of it.
    route: below the upstream's base URL.
    include_usage: whether the client asked for the last chunk, with the usage.
    """

    request: Request
    route: str
    body: bytes
    headers: Mapping[str, str]
    include_usage: bool


class Exchange:
    """An order in progress; call `whole` or `events`, once.

    returned_headers: for our client; empty until the upstream has answered.
    """

    def __init__(self, order: Order, upstream: Upstream, accounts: Accounts, meter: UpstreamMeter) -> None:
        self._order = order
        self._upstream = upstream
        self._accounts = accounts
        self._meter = meter
        # The upstream's own id may be anybody's, and this one is in the ledger before the upstream answers.
        self._head = {"id": order.request.id, "model": order.request.model}
        self.returned_headers: dict[str, str] = {}

    async def whole(self) -> bytes:
        """The answer as JSON. Raises ApiError, as `events` does before its first event."""
        async with self._accounts.open(self._order.request, self._meter) as account:
            async with self._asked("application/json") as pieces:
                body = bytearray()
                async for piece in pieces:
                    body += piece
                    if len(body) > LARGEST_ANSWER_BYTES:
                        raise errors.bad_answer(f"with more than {LARGEST_ANSWER_BYTES} bytes")
                answer = self._read(body, is_chunk=False)
                if not answer.get("choices"):
                    raise errors.bad_answer("without choices")
                written = _json(answer | self._head)
            await account.finish()
            return written

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events; a failure after the first becomes an event and the end."""
        is_open = False
        try:
            async with (
                self._accounts.open(self._order.request, self._meter) as account,
                self._asked("text/event-stream") as pieces,
            ):
                async with contextlib.aclosing(self._shown(pieces)) as shown:
                    async for data in shown:
                        if not is_open:
                            await account.is_recorded()
                        is_open = True
                        yield data
                await account.finish()
                yield DONE
                await _read_to_end(pieces)
        except ApiError as error:
            if not is_open:
                raise
            yield event(error.body)

    @contextlib.asynccontextmanager
    async def _asked(self, content_type: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Wait for a turn and ask; the bytes of an answer that is of the right kind."""
        order = self._order
        async with self._upstream.turn(order.request.sequences, order.request.key):
            self._meter.sends()
            try:
                async with self._upstream.post(order.route, order.body, headers=order.headers) as response:
                    self.returned_headers = headers.crossing(response.headers, headers.RETURNED)
                    if response.status_code != 200:
                        raise await self._failure(response)
                    await self._refuse_other_than(content_type, response)
                    yield response.aiter_raw()
            except errors.Refused:
                self._meter.was_refused()
                raise

    async def _failure(self, response: httpx.Response) -> ApiError:
        """The error for an answer that is no 200, once the use that it may tell of is counted."""
        body = await beginning(response)
        self._meter.saw_failure(body)
        return errors.from_status(
            response.status_code,
            body,
            key=self._upstream.config.key,
            retry_after=response.headers.get("retry-after", ""),
        )

    async def _refuse_other_than(self, content_type: str, response: httpx.Response) -> None:
        # It was asked for none. A kilobyte on the wire can be a megabyte of answer, or of nothing.
        encoding = response.headers.get("content-encoding", "").lower()
        if encoding not in ("", "identity"):
            raise errors.bad_answer(f"compressed ({encoding[:100]}), though it was asked not to")
        given = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != content_type:
            if given == "application/json":  # an error, perhaps, that forgot its status
                self._read(await beginning(response), is_chunk=False)
            raise errors.bad_answer(f"with {given[:100] or 'no content type'} instead of {content_type}")

    async def _shown(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The events for the client, each as soon as it is there, but for the one that awaits the usage."""
        held = b""
        try:
            async with contextlib.aclosing(self._chunks(pieces)) as chunks:
                async for chunk in chunks:
                    if held:
                        yield held
                        held = b""
                    if self._is_shown(chunk):
                        data = b"data: " + _json(chunk | self._head) + b"\n\n"
                        if self._meter.awaits_usage:
                            held = data
                        else:
                            yield data
        except (ApiError, httpx.RequestError):
            if held:
                yield held
            raise
        if held:
            yield held

    async def _chunks(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any], None]:
        parser = EventParser(limit_bytes=LARGEST_EVENT_BYTES)
        async for piece in pieces:
            try:
                events = parser.feed(piece)
            except EventTooLarge as error:
                raise errors.bad_answer(f"with an event of over {LARGEST_EVENT_BYTES} bytes") from error
            for data in events:
                if data == b"[DONE]":
                    self._refuse_incomplete()
                    return
                yield self._read(data, is_chunk=True)
        self._refuse_incomplete()

    def _refuse_incomplete(self) -> None:
        if not self._meter.is_complete:
            raise errors.incomplete()

    def _read(self, data: bytes | bytearray, *, is_chunk: bool) -> dict[str, Any]:
        """A chunk, or a whole answer, counted. Raises ApiError if it is an error or not OpenAI's."""
        try:
            answer = json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise errors.bad_answer("with something that is not JSON") from error
        if not isinstance(answer, dict):
            raise errors.bad_answer("with JSON that is no object")
        if failure := errors.from_event(answer, key=self._upstream.config.key):
            self._meter.saw_failure(data)
            raise failure
        try:
            self._meter.saw(answer, is_chunk=is_chunk)
        except msgspec.ValidationError as error:
            raise errors.bad_answer("with an object that has not the shape of OpenAI's answers") from error
        return answer

    def _is_shown(self, chunk: dict[str, Any]) -> bool:
        """Whether the client gets this chunk, which is changed for its eyes."""
        if not chunk.get("choices"):
            return self._order.include_usage or chunk.pop("usage", None) is None
        if not self._order.include_usage or CONTINUOUS_USAGE in self._upstream.config.knows:
            chunk.pop("usage", None)
        return True


async def _read_to_end(pieces: AsyncIterator[bytes]) -> None:
    """Read what follows the last event, nothing if all is well, so that the connection can be used again."""
    with contextlib.suppress(TimeoutError, ApiError, httpx.RequestError):  # the answer is complete
        async with asyncio.timeout(LONGEST_GOODBYE_SECONDS):
            async for _ in pieces:
                pass


def _json(data: dict[str, Any]) -> bytes:
    try:
        try:
            return _dumped(data, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # half a surrogate pair, which only JSON's escapes can say
            return _dumped(data, ensure_ascii=True).encode()
    except (ValueError, RecursionError) as error:
        raise errors.bad_answer("with a number or a nesting that cannot be passed on") from error


def _dumped(data: dict[str, Any], *, ensure_ascii: bool) -> str:
    return json.dumps(data, ensure_ascii=ensure_ascii, allow_nan=False, separators=(",", ":"))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
