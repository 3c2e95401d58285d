"""A small Hugging Face hub on 127.0.0.1 that misbehaves on request: a real server, so real sockets break."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """What the server holds, how it misbehaves, and what it was asked.

    `break_after`: bytes after which the next connections are cut, one entry per connection. `wrong_bytes`:
    the weights that arrive instead of the promised ones. `status`: answer everything with that.
    """

    files: dict[str, bytes]
    large: tuple[str, ...] = ("model.safetensors",)
    break_after: list[int] = field(default_factory=list)
    wrong_bytes: bytes = b""
    ignores_range: bool = False
    redirects: bool = False
    status: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    url: str = ""

    def listing(self) -> bytes:
        siblings = []
        for name, content in self.files.items():
            git_sha1 = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            sibling = {"rfilename": name, "size": len(content), "blobId": git_sha1}
            if name in self.large:
                sha256 = hashlib.sha256(content).hexdigest()
                sibling |= {"blobId": "0" * 40, "lfs": {"sha256": sha256, "size": len(content)}}
            siblings.append(sibling)
        return json.dumps({"sha": COMMIT, "siblings": siblings}).encode()


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve `hub` at `hub.url` while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            hub.requests.append((path, self.headers.get("Range", "")))
            hub.authorizations.append(self.headers.get("Authorization", ""))
            if hub.status:
                self.answer(hub.status, b"no")
            elif path.startswith("/api/models/"):
                self.answer(200, hub.listing())
            elif hub.redirects and path.startswith("/course/tiny/resolve/"):
                self.send_response(302)
                # Another name of this computer: another origin, as the hub's store of large files is.
                self.send_header("Location", hub.url.replace("127.0.0.1", "localhost") + "/store" + path)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.send_file(path.rpartition("/")[2])

        def send_file(self, name: str) -> None:
            if name not in hub.files:
                self.answer(404, b"not here")
                return
            content = hub.files[name]
            if name in hub.large and hub.wrong_bytes:
                content = hub.wrong_bytes
            asked = self.headers.get("Range")
            start = (
                int(asked.removeprefix("bytes=").removesuffix("-")) if asked and not hub.ignores_range else 0
            )
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            rest = content[start:]
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if name in hub.large and hub.break_after:
                self.wfile.write(rest[: hub.break_after.pop(0)])
                self.wfile.flush()
                self.close_connection = True
            else:
                self.wfile.write(rest)

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A connection that we broke ourselves is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
