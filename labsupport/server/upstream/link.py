"""The server's hold on its upstream: ask it, within limits, and know whether it can be asked.

Right means: at most so many requests are with the upstream at once and the others wait for their turn; a
block that is left, however it is left, leaves no request running there; only headers on a list cross; and
`ready` is never older than a probe, and costs whoever asks for it nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.cookiejar
import logging
import time
from collections.abc import AsyncIterator, Mapping

import httpx

from labsupport.engine.messages import StepReport
from labsupport.server import auth
from labsupport.server.turns import Turns
from labsupport.server.upstream import errors
from labsupport.server.upstream.config import UpstreamConfig

PROBE_EVERY_SECONDS = 5.0
PROBE_AGAIN_SECONDS = 1.0
"""How soon an upstream that was not ready is asked again."""
PROBE_LIMIT_SECONDS = 3.0
KEEP_ALIVE_SECONDS = 4.0
"""Less than the five seconds of uvicorn, and so of vLLM: else it may hang up as we send the next request."""
LARGEST_ERROR_BYTES = 64 * 2**10

logger = logging.getLogger("labsupport.server")


class Upstream:
    """Takes the place of an `EngineLink` where another server does the work."""

    failure = None  # it is never too late for an upstream to come up
    restarts = 0
    trouble = ""  # the status says it all
    context_tokens = None  # only the upstream knows

    def __init__(self, config: UpstreamConfig) -> None:
        self.config = config
        self._client = _client(config)
        self._turns = Turns(config.connections)
        self._waiting = self._running = 0
        self._probing: asyncio.Task[None] | None = None
        self.status = "connecting"
        """`connecting`, `ready`, `unreachable`, `failing` or `key_refused`, as the last probe found it."""

    def begin(self) -> None:
        """Start to probe."""
        if self.config.key and self.config.url.startswith("http://") and not _is_loopback(self.config.url):
            logger.warning("the upstream's key goes over http:// and can be read on its way")
        logger.info("upstream at %s, where the model is %r", self.config.url, self.config.model)
        self._probing = asyncio.create_task(self._probe_for_ever())

    async def end(self) -> None:
        """Stop probing and close all connections. Safe to repeat."""
        if self._probing is not None:
            self._probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probing
        await self._client.aclose()

    @property
    def ready(self) -> bool:
        return self.status == "ready"

    @property
    def last_report(self) -> StepReport:
        """The sequences that are with the upstream, and those that wait here for their turn."""
        return StepReport(time=time.monotonic(), running=self._running, waiting=self._waiting)

    @contextlib.asynccontextmanager
    async def turn(self, sequences: int, key: str) -> AsyncIterator[None]:
        """Wait for a turn of this key to ask, and hold it for the block."""
        self._waiting += sequences
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._turns.hold(key))
            finally:
                self._waiting -= sequences
            self._running += sequences
            try:
                yield
            finally:
                self._running -= sequences

    @contextlib.asynccontextmanager
    async def post(
        self, route: str, body: bytes, *, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """Ask one of the upstream's routes, and hold its answer, still to be read, for the block.

        Leaving the block before the answer's end closes the connection, which is how the upstream learns
        that nobody waits any more. Raises ApiError if it cannot be asked or breaks off, in the block too.
        """
        answer_began = False
        request = self._client.stream("POST", f"{self.config.url}/{route}", content=body, headers=headers)
        try:
            async with request as response:
                answer_began = True
                yield response
        except httpx.RequestError as error:
            raise errors.from_transport(error, answer_began=answer_began) from error

    async def _probe_for_ever(self) -> None:
        while True:
            before, self.status = self.status, await self._probe()
            if self.status != before:
                logger.info("the upstream is %s", self.status)
            await asyncio.sleep(PROBE_EVERY_SECONDS if self.ready else PROBE_AGAIN_SECONDS)

    async def _probe(self) -> str:
        """Ask for the list of models, and look no further than its status: some lists are long."""
        try:
            async with (
                asyncio.timeout(PROBE_LIMIT_SECONDS),
                self._client.stream("GET", f"{self.config.url}/models") as response,
            ):
                status = response.status_code
        except (httpx.RequestError, TimeoutError):
            return "unreachable"
        except Exception:  # whatever it is, there is a next time
            logger.exception("the upstream could not be probed")
            return "unreachable"
        if status in (401, 403):
            return "key_refused"
        # 404: a server without this route is there all the same
        return "failing" if status >= 500 or 300 <= status < 400 else "ready"


async def beginning(response: httpx.Response) -> bytes:
    """As much of an error's body as is worth reading, as it came: a compressed one says nothing."""
    body = b""
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > LARGEST_ERROR_BYTES:
            break
    return body[:LARGEST_ERROR_BYTES]


def _client(config: UpstreamConfig) -> httpx.AsyncClient:
    headers = {
        "Accept": "application/json, text/event-stream",
        "Accept-Encoding": "identity",  # a compressed stream comes in blocks, not in events
        "Content-Type": "application/json",
        "User-Agent": "labsupport",
    }
    if config.key:
        headers["Authorization"] = f"Bearer {config.key}"
    host = httpx.URL(config.url).host
    return httpx.AsyncClient(
        headers=headers,
        timeout=httpx.Timeout(config.silence_seconds, connect=config.connect_seconds),
        # `turn` bounds the connections in use. The pool's own bound leaks places when a request is cancelled
        # while it waits for one: https://github.com/encode/httpcore/issues/1093
        limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS),
        follow_redirects=False,  # they would carry the prompt to a host that nobody chose
        # One client's cookies must not become another's session.
        cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
        # The environment's proxy is for the world outside.
        mounts={f"all://{f'[{host}]' if ':' in host else host}": None} if auth.is_loopback(host) else None,
    )


def _is_loopback(url: str) -> bool:
    return auth.is_loopback(httpx.URL(url).host)
