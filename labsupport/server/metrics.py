"""What Prometheus reads at `/metrics`.

Names mirror vLLM's, with `labsupport:` for `vllm:`, so that dashboards carry over. Right means: counters
count what really happened, aborted and failed work included; gauges are the engine's newest report, and 0
while there is no engine. A "request" here is one sequence: a request with n=2 counts twice, as in vLLM.
Source of names: https://docs.vllm.ai/en/latest/design/metrics.html
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labsupport.engine.messages import Delta, StepReport

PREFIX = "labsupport:"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class EngineState(Protocol):
    """What the gauges ask of the engine at the moment of a scrape."""

    @property
    def ready(self) -> bool: ...

    @property
    def restarts(self) -> int: ...

    @property
    def last_report(self) -> StepReport | None: ...


class Listener(Protocol):
    """Who wants to know at once, too."""

    def first_token(self, seconds: float) -> None: ...

    def next_token(self, seconds: float) -> None: ...

    def used(self, *, prompt_tokens: int, generation_tokens: int) -> None: ...


class Metrics:
    """The registry of one server; `render()` is the body of `/metrics`. A `listener` may come and go."""

    def __init__(self, model: str, engine: EngineState) -> None:
        disable_created_metrics()  # a time stamp beside every counter, which nothing here reads
        self.registry = CollectorRegistry()
        self._model = model
        self.listener: Listener | None = None
        self._prompt_tokens = self._counter(
            "prompt_tokens", "Prompt tokens of requests that produced a token."
        )
        self._generation_tokens = self._counter("generation_tokens", "Tokens generated.")
        self._prefix_queries = self._counter(
            "prefix_cache_queries", "Prompt tokens looked up in the prefix cache."
        )
        self._prefix_hits = self._counter("prefix_cache_hits", "Prompt tokens found in the prefix cache.")
        self._finished = Counter(
            f"{PREFIX}request_success",
            "Requests ended, by reason: stop, length, abort (the client went away) or error.",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        for reason in ("stop", "length", "abort", "error"):
            self._finished.labels(model, reason)
        self._responses = Counter(
            f"{PREFIX}http_responses",
            "HTTP responses begun, by status.",
            ["model_name", "status"],
            registry=self.registry,
        )
        self._ttft = self._histogram("time_to_first_token_seconds", "From arrival to the first token.")
        self._itl = self._histogram(
            "inter_token_latency_seconds", "Between consecutive tokens of one request."
        )
        self._queue = self._histogram(
            "request_queue_time_seconds", "From arrival at the engine to its first step."
        )
        self._e2e = self._histogram("e2e_request_latency_seconds", "From arrival to the end of the request.")
        self.registry.register(_EngineCollector(model, engine))

    def watch(self, prompt_tokens: int, *, arrived: float) -> SequenceWatch:
        """Begin to measure one sequence, of a request that came in at `arrived` on the monotonic clock."""
        return SequenceWatch(self, prompt_tokens, arrived)

    def used(self, *, prompt_tokens: int, cached_tokens: int, generation_tokens: int) -> None:
        """Count tokens; `cached_tokens` of the prompt's were found in the prefix cache."""
        self._generation_tokens.inc(generation_tokens)
        if prompt_tokens:
            self._prompt_tokens.inc(prompt_tokens)
            self._prefix_queries.inc(prompt_tokens)
            self._prefix_hits.inc(cached_tokens)
        if self.listener:
            self.listener.used(
                prompt_tokens=prompt_tokens - cached_tokens, generation_tokens=generation_tokens
            )

    def responded(self, status: int) -> None:
        """Count an HTTP response."""
        self._responses.labels(self._model, str(status)).inc()

    def render(self) -> bytes:
        """All metrics in Prometheus' text format, version 0.0.4."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"{PREFIX}{name}", text, ["model_name"], registry=self.registry).labels(self._model)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(
            f"{PREFIX}{name}", text, ["model_name"], registry=self.registry, buckets=_SECONDS
        ).labels(self._model)


class SequenceWatch:
    """The clock and the counts of one sequence, from its arrival to its end."""

    def __init__(self, metrics: Metrics, prompt_tokens: int, arrived: float) -> None:
        self._metrics = metrics
        self._prompt_tokens = prompt_tokens
        self._arrival = arrived
        self._last_token: float | None = None
        self.first_token_at: float | None = None
        self._ended = False

    def saw(self, delta: Delta) -> None:
        """Count what one delta brought."""
        if delta.tokens:
            is_first = self._last_token is None
            self.heard(len(delta.tokens))
            if is_first:
                self.left_queue(delta.queue_seconds)
            self._metrics.used(
                prompt_tokens=self._prompt_tokens if is_first else 0,
                cached_tokens=delta.cached_tokens if is_first else 0,
                generation_tokens=len(delta.tokens),
            )
        if delta.finish_reason:
            self.end(delta.finish_reason)

    def heard(self, count: int = 1) -> None:
        """So many tokens came at once: the time to the first, and between each two, evenly spread."""
        now, listener = time.monotonic(), self._metrics.listener
        gaps, since = count, self._last_token
        if since is None:
            gaps, since = count - 1, now
            self.first_token_at = now
            self._metrics._ttft.observe(now - self._arrival)
            if listener:
                listener.first_token(now - self._arrival)
        for _ in range(gaps):
            self._metrics._itl.observe((now - since) / gaps)
            if listener:
                listener.next_token((now - since) / gaps)
        self._last_token = now

    def left_queue(self, queue_seconds: float) -> None:
        """The work on it began, that long after it came to the queue."""
        self._metrics._queue.observe(queue_seconds)

    def end(self, reason: str) -> None:
        """Count the end, once; later calls change nothing."""
        if not self._ended:
            self._ended = True
            self._metrics._finished.labels(self._metrics._model, reason).inc()
            self._metrics._e2e.observe(time.monotonic() - self._arrival)


class CountResponses:
    """Around the whole application: sees every response, whichever part of the server sent it."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.responded(message["status"])
            await send(message)

        await self.app(scope, receive, counted)


class _EngineCollector(Collector):
    """Reads the engine's state when Prometheus asks, rather than keeping copies that can be stale."""

    def __init__(self, model: str, engine: EngineState) -> None:
        self._model = model
        self._engine = engine

    def describe(self) -> Iterator[Metric]:
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        engine = self._engine
        report = engine.last_report if engine.ready else None
        cells = report.kv_total_cells if report else 0
        for name, text, value in (
            ("num_requests_running", "Requests in the running batch.", report.running if report else 0),
            ("num_requests_waiting", "Requests waiting for a slot.", report.waiting if report else 0),
            (
                "kv_cache_usage_perc",
                "KV cache in use; 1 is all of it.",
                report.kv_used_cells / cells if report and cells else 0,
            ),
            ("engine_ready", "1 while the engine process is up and heard from.", int(engine.ready)),
        ):
            gauge = GaugeMetricFamily(f"{PREFIX}{name}", text, labels=["model_name"])
            gauge.add_metric([self._model], value)
            yield gauge
        restarts = CounterMetricFamily(
            f"{PREFIX}engine_restarts", "Times the engine process was started again.", labels=["model_name"]
        )
        restarts.add_metric([self._model], engine.restarts)
        yield restarts
