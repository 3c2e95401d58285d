"""A package index on this computer: real HTTP, real pip, tiny wheels, and a record of what was asked for."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CUDA_NEEDS = ('nvidia-cublas==13.0; platform_system == "Linux"', "cuda-bindings>=13")
SLICE_BYTES = 1 << 16


@dataclass(frozen=True)
class Wheel:
    """A wheel of torch: its version, what it needs, and how it is served.

    `metadata` says whether the index serves the metadata separately (PEP 658). `padding_bytes` makes it
    large; a large one is sent slowly, as over a real network.
    """

    version: str
    needs: tuple[str, ...] = ()
    metadata: bool = True
    padding_bytes: int = 0

    @property
    def filename(self) -> str:
        return f"torch-{self.version}-py3-none-any.whl"

    @property
    def metadata_text(self) -> str:
        required = "".join(f"Requires-Dist: {need}\n" for need in self.needs)
        return f"Metadata-Version: 2.1\nName: torch\nVersion: {self.version}\n{required}"

    def content(self) -> bytes:
        info = f"torch-{self.version}.dist-info"
        files = {
            "torch/__init__.py": f"__version__ = {self.version!r}\nNEEDS = {self.needs!r}\n",
            f"{info}/METADATA": self.metadata_text,
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            if self.padding_bytes:
                archive.writestr("torch/padding.bin", b"\0" * self.padding_bytes)
            for name, text in {**files, f"{info}/RECORD": record}.items():
                archive.writestr(name, text)
        return buffer.getvalue()


@dataclass
class Index:
    """One index: its address, and how many bytes of each file it has sent."""

    url: str
    sent_bytes: dict[str, int] = field(default_factory=dict)


@contextmanager
def serving(**indexes: Iterable[Wheel]) -> Iterator[dict[str, Index]]:
    """Serve these indexes under their names until the block ends."""
    wheels = {name: {wheel.filename: wheel for wheel in offered} for name, offered in indexes.items()}
    found: dict[str, Index] = {}
    stopping = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, name, *rest = self.path.rstrip("/").split("/")
            file = rest[-1].replace("%2B", "+") if rest else ""
            if file == "torch" and wheels.get(name):
                self._send(name, "torch/", self._page(name).encode(), "text/html")
            elif file.removesuffix(".metadata") in wheels.get(name, {}):
                wheel = wheels[name][file.removesuffix(".metadata")]
                body = wheel.metadata_text.encode() if file.endswith(".metadata") else wheel.content()
                self._send(name, file, body, "application/octet-stream")
            else:
                self.send_error(404)

        def _page(self, name: str) -> str:
            lines = []
            for wheel in wheels[name].values():
                digest = hashlib.sha256(wheel.metadata_text.encode()).hexdigest()
                mark = f' data-core-metadata="sha256={digest}"' if wheel.metadata else ""
                href = f"/{name}/{wheel.filename.replace('+', '%2B')}"
                lines.append(f'<a href="{href}"{mark}>{wheel.filename}</a>')
            return "<!DOCTYPE html><html><body>" + "\n".join(lines) + "</body></html>"

        def _send(self, name: str, file: str, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for start in range(0, len(body), SLICE_BYTES):
                part = body[start : start + SLICE_BYTES]
                try:
                    self.wfile.write(part)
                except OSError:
                    return
                found[name].sent_bytes[file] = found[name].sent_bytes.get(file, 0) + len(part)
                if len(body) > 16 * SLICE_BYTES and stopping.wait(0.05):
                    return

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    for name in wheels:
        found[name] = Index(f"http://127.0.0.1:{server.server_port}/{name}/")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
