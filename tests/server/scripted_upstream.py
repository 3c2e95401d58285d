"""An upstream that does exactly what a test tells it to, down to the byte: no real server fails on demand.

It speaks just enough HTTP/1.1 over a plain socket to be asked, records every request as it came, and then
runs the test's script, which writes the answer and can stop anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

WAIT_SECONDS = 60


def answer(
    status: int = 200, body: Any = b"", content_type: str | None = "application/json", **headers: str
) -> bytes:
    """A complete response. `headers` are written with hyphens for underscores; other bodies become JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}"]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def completion(text: str = "Hello", **changes: Any) -> dict[str, Any]:
    """A whole chat answer, as OpenAI's servers write it."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "theirs",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
        **changes,
    }


def chunk(text: str | None = None, *, finish_reason: str | None = None, **changes: Any) -> dict[str, Any]:
    """One chunk of a chat answer; without a text it is the one that says who speaks."""
    delta = {"role": "assistant", "content": ""} if text is None else {"content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "theirs",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
        **changes,
    }


@dataclass
class Asked:
    """One request as it reached the upstream, and the line to answer on."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    client_left: threading.Event = field(default_factory=threading.Event)

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def open_stream(self, **headers: str) -> None:
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
        await self.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
            + "".join(lines).encode()
            + b"Transfer-Encoding: chunked\r\n\r\n"
        )

    async def piece(self, data: bytes) -> None:
        """Bytes of a chunked body, sent as one chunk."""
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def event(self, data: dict[str, Any]) -> None:
        await self.piece(b"data: " + json.dumps(data).encode() + b"\n\n")

    async def end_stream(self, *, done: bool = True) -> None:
        if done:
            await self.piece(b"data: [DONE]\n\n")
        await self.send(b"0\r\n\r\n")

    async def until_client_left(self) -> None:
        await self.reader.read()
        self.client_left.set()

    async def wait_for(self, happening: threading.Event) -> None:
        """Wait for what the test does meanwhile."""
        assert await asyncio.to_thread(happening.wait, WAIT_SECONDS), "the test never came this far"

    def hang_up(self) -> None:
        self.writer.close()


Script = Callable[[Asked], Awaitable[None]]


def always(response: bytes) -> Script:
    async def script(asked: Asked) -> None:
        await asked.send(response)

    return script


class ScriptedUpstream:
    """Listens on a free port for the length of a `with` block.

    script: what the next POST gets. models: the bytes that answer GET /v1/models, which is the probe's;
    empty bytes answer nothing at all. requests: every POST. probes, connections, most_at_once: counts.
    """

    def __init__(self) -> None:
        self.script: Script = always(answer(body=completion()))
        self.models = answer(body={"object": "list", "data": []})
        self.requests: list[Asked] = []
        self.probes = self.connections = self.most_at_once = self._at_once = 0
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_listening()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def listen(self) -> None:
        """Listen, on the same port as before if there was one."""
        starting = asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(WAIT_SECONDS)
        self._port = self._server.sockets[0].getsockname()[1]

    def stop_listening(self) -> None:
        """Hang up on everybody and listen no more."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(WAIT_SECONDS)

    async def _stop(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_counted = False
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while not writer.is_closing():
                asked = await _request(reader, writer)
                if asked.method == "GET":
                    self.probes += 1
                    await asked.send(self.models)
                    continue
                self.connections += not is_counted
                is_counted = True
                self.requests.append(asked)
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    await self.script(asked)
                finally:
                    self._at_once -= 1


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, body, reader, writer)
