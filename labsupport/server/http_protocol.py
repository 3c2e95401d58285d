"""Connections whose other end is no good client: what is not HTTP, what never ends, and who never reads.

Right means: bytes that cannot be read as a request get 400 with OpenAI's error object, as far as an answer is
still possible, and the connection closes; and nobody holds a connection, or what an answer holds on our side,
by doing nothing, or next to nothing. (A body that does not arrive is `limits.BodyLimit`'s business, for as
long as somebody waits for it.)
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import socket
import struct
import termios
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from labsupport.server.errors import ApiError, bad_request

logger = logging.getLogger("labsupport.server")


class HttpProtocol(H11Protocol):
    """The web server's own protocol, but for its patience and for the answer to what it cannot read.

    header_seconds: how long the head of a request may take, from its first byte or from the opening of the
        connection, and what still comes of a body whose request was answered already (refused, mostly).
        (Between two requests the web server's own time for an idle connection counts.)
    stall_seconds, least_bytes_per_second: in each stretch of so many seconds in which an answer waits for its
        client, the client has to take that much of it, and something in any case. A stream that nobody reads
        keeps its place among the requests in hand, so a few dozen of them would keep everybody out; with a
        least rate, an answer of B bytes holds its place for B / rate + stall_seconds at most. Sixty seconds
        is what nginx's `send_timeout` allows by default; for the rate, see `labsupport serve --help`.
    """

    header_seconds = 20.0
    stall_seconds = 60.0
    least_bytes_per_second = 1000

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    @classmethod
    def with_least_rate(cls, bytes_per_second: int) -> type[HttpProtocol]:
        """The same, for readers that are at least so fast."""
        return type(cls.__name__, (cls,), {"least_bytes_per_second": bytes_per_second})

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        # A token is a small write. Without this, each but the first would wait for the acknowledgement of the
        # one before, which the other end puts off for 40 ms. (asyncio does it for its own sockets only.)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self._time_the_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_the_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timing_the_head()
        self._stop_timing_the_reader()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._time_the_reader()

    def resume_writing(self) -> None:
        self._stop_timing_the_reader()
        super().resume_writing()
        self._time_a_goodbye()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._time_a_goodbye()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._time_a_goodbye()

    def send_400_response(self, msg: str) -> None:
        """Answer `msg`, the web server's words for what was wrong, and hang up."""
        self._refuse(bad_request(msg, code="invalid_http"))

    # A head that never ends, and the rest of a body whose answer is out: nobody waits for that one any more

    def _time_the_head(self) -> None:
        """Let the timer run from the first byte of a head to its last, or while a useless body goes on."""
        if not (self.conn.their_state is h11.IDLE or self._is_answered_early) or self.transport.is_closing():
            self._stop_timing_the_head()
        elif self._head_timer is None and self.timeout_keep_alive_task is None:
            self._head_timer = self.loop.call_later(self.header_seconds, self._head_is_late)

    def _stop_timing_the_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    @property
    def _is_answered_early(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY and self.conn.our_state in {h11.DONE, h11.MUST_CLOSE}

    def _head_is_late(self) -> None:
        has_begun = bool(self.conn.trailing_data[0]) and not self._is_answered_early
        if has_begun:
            message = f"The head of the request did not arrive within {self.header_seconds:g} s."
            self._refuse(ApiError(408, message, code="head_too_slow"))
        else:
            self.transport.close()

    # A reader that never reads, or hardly

    def _time_a_goodbye(self) -> None:
        """Closing waits until all is read, however little it is."""
        if self.transport.is_closing() and self.transport.get_write_buffer_size() and not self._stall_timer:
            self._time_the_reader()

    def _time_the_reader(self) -> None:
        self._stall_timer = self.loop.call_later(
            self.stall_seconds, self._judge_the_reader, self._untaken_bytes()
        )

    def _stop_timing_the_reader(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _untaken_bytes(self) -> int:
        """What of the answer the client's side has not acknowledged. None is added while it waits.

        Ours is the smaller part: the kernel holds megabytes, and takes more of ours only when a third of them
        is gone. Where it does not say how much it holds, a slow reader is seen to take nothing, then a lot.
        """
        held = bytes(4)
        with contextlib.suppress(OSError):
            held = fcntl.ioctl(self.transport.get_extra_info("socket"), termios.TIOCOUTQ, held)
        return self.transport.get_write_buffer_size() + int(struct.unpack("i", held)[0])

    def _judge_the_reader(self, bytes_before: int) -> None:
        taken = bytes_before - self._untaken_bytes()
        if taken >= max(1, self.least_bytes_per_second * self.stall_seconds):
            self._time_the_reader()
            return
        logger.info("hung up on a client that took %d bytes in %g s", taken, self.stall_seconds)
        self.transport.abort()  # close() would wait until it reads

    def _refuse(self, refusal: ApiError) -> None:
        body = json.dumps(refusal.body).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        reason = HTTPStatus(refusal.status).phrase.encode()
        try:
            for event in (
                h11.Response(status_code=refusal.status, headers=headers, reason=reason),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            logger.info("hung up in the middle of an answer: what came next was not HTTP")
        self.transport.close()
