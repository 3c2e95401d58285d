"""`labsupport.serve(...)`: a real server for the length of a `with` block.

Right means: inside the block the server answers; after it, or when this process dies in any way, the server
and its engine are gone; and a server that does not come up says why, in its own last words.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from labsupport.engine.model_files import prepare
from labsupport.errors import LabsupportError
from labsupport.server.child import Child
from labsupport.server.run import GRACE_SECONDS, LISTENING, served_name

if TYPE_CHECKING:
    import openai

PROGRESS_EVERY_SECONDS = 10.0
_POLL_SECONDS = 0.05


class ServerFailed(LabsupportError):
    """The server did not come up, or ended while it was needed."""


def serve(
    model: str | None = None,
    quant: str = "",
    *,
    timeout_seconds: float = 300.0,
    progress: bool = True,
    **options: Any,
) -> Server:
    """A server in a process of its own, on a free port of this computer; use it in a `with` block.

    model: a catalogue name or a GGUF file; None takes `LABSUPPORT_MODEL`, or pocket. With
        `engine="upstream"` any name.
    quant: as of `labsupport serve`; "" takes the engine's default, q4_k_m where llama.cpp serves.
    timeout_seconds: how long to wait until it is ready.
    progress: say on standard error, every ten seconds, what is waited for.
    options: those of `labsupport serve`, with underscores: `slots=4`, `context=1024`, `kv_type="q8_0"`,
        `api_key="…"`, `debug=True`. With `api_key_file="…"` too, the server reads its keys there, and
        `api_key` is the one that this handle shows.

    Raises ServerFailed, with the server's own last lines, when it does not come up; LabsupportError for an
    unknown model.
    """
    return Server(
        model or os.environ.get("LABSUPPORT_MODEL", "pocket"),
        quant,
        timeout_seconds=timeout_seconds,
        progress=progress,
        options=options,
    )


class Server:
    """A running server. `url` has no trailing slash and no `/v1`; `model` is the name to ask for."""

    url: str

    def __init__(
        self, model: str, quant: str, *, timeout_seconds: float, progress: bool, options: dict[str, Any]
    ) -> None:
        self._is_relay = options.get("engine") == "upstream"
        self.model = model if self._is_relay else served_name(model)
        self._timeout_seconds = timeout_seconds
        self._progress = progress
        self._api_key: str | None = options.pop("api_key", None)
        self._writes_key = self._api_key is not None and options.get("api_key_file") is None
        self._wanted = (model, quant)
        self._engine = {
            "engine": options.get("engine", "auto"),
            "n_gpu_layers": options.get("gpu_layers", -1),
        }
        self._arguments = ["--model", model, "--quant", quant, "--port", "0", *_as_arguments(options)]
        self._child = Child("labsupport-server-")
        self._http = httpx.Client(headers=self.headers, timeout=10)

    def __enter__(self) -> Self:
        try:
            self._start()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def headers(self) -> dict[str, str]:
        """What a request of one's own has to carry: the key, if there is one."""
        return {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}

    @property
    def pid(self) -> int:
        """Process id of the HTTP server; the engine is a child of it."""
        if self._child.process is None:
            raise ServerFailed("the server is not running", remedy="use it inside its `with` block")
        return self._child.process.pid

    def openai(self, **options: Any) -> openai.OpenAI:
        """The official client, pointed here. It does not retry by itself, so that a refusal is seen."""
        import openai

        defaults: dict[str, Any] = {
            "base_url": f"{self.url}/v1",
            "api_key": self._api_key or "no-key-needed",
            "max_retries": 0,
        }
        return openai.OpenAI(**(defaults | options))

    def metrics(self) -> dict[str, float]:
        """Every sample at `/metrics`, by name; labels other than the model's name follow in braces."""
        from prometheus_client.parser import text_string_to_metric_families

        samples = {}
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                labels = ",".join(
                    f'{label}="{value}"'
                    for label, value in sorted(sample.labels.items())
                    if label != "model_name"
                )
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def get(self, path: str) -> httpx.Response:
        """A GET of one route, with the key if there is one."""
        return self._http.get(self.url + path)

    def log_tail(self, lines: int = 12) -> str:
        """The last lines of what the server printed."""
        return self._child.log_tail(lines)

    def stop(self) -> None:
        """End the server: politely, then not. Safe to repeat."""
        if self._child.process is not None:
            self._child.process.terminate()
        self._child.stop(GRACE_SECONDS + 5)
        self._http.close()

    def _start(self) -> None:
        if not self._is_relay:  # what must be pulled or converted is, with its progress shown here
            prepare(*self._wanted, **self._engine)
        arguments = [*self._arguments, "--stop-with-stdin"]
        if self._writes_key:
            key_file = self._child.folder / "keys"
            key_file.touch(mode=0o600)
            key_file.write_text(str(self._api_key), encoding="utf-8")
            arguments += ["--api-key-file", str(key_file)]
        self._child.start([sys.executable, "-m", "labsupport", "serve", *arguments])

    def _wait_until_ready(self) -> None:
        next_word = PROGRESS_EVERY_SECONDS

        def say(waited_seconds: float) -> None:
            nonlocal next_word
            if self._progress and waited_seconds > next_word:
                next_word += PROGRESS_EVERY_SECONDS
                print(
                    f"waiting for {self.model}: {waited_seconds:.0f} s. {self.log_tail(1)}", file=sys.stderr
                )

        if reason := self._child.why_not(
            self._is_ready,
            within_seconds=self._timeout_seconds,
            poll_seconds=_POLL_SECONDS,
            meanwhile=say,
        ):
            raise ServerFailed(
                f"the server {reason}",
                remedy="if it is only slow, give it longer with timeout_seconds=…, or choose a smaller model",
            )

    def _is_ready(self) -> bool:
        if not hasattr(self, "url"):
            _, found, url = self.log_tail(1000).partition(LISTENING)
            if not found or "\n" not in url:
                return False
            self.url = url.split()[0]
        try:
            return self.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False


def _as_arguments(options: dict[str, Any]) -> list[str]:
    """slots=4, debug=True → --slots 4 --debug"""
    arguments = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            arguments.append(flag)
        elif value is not False and value is not None:
            arguments += [flag, str(value)]
    return arguments
