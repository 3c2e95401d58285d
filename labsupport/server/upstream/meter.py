"""What is counted of one request that the upstream answers.

Right means: tokens are those that the upstream's own `usage` says, once, whether our client asked to see it
or not; where the upstream never said (it broke off, or the client left), no guess is counted, and the request
is in `upstream_requests_without_usage`.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from prometheus_client import Counter

from labsupport.server.metrics import PREFIX, Metrics

FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call", "abort"})
Count = Annotated[int, msgspec.Meta(ge=0)]


class PromptDetails(msgspec.Struct):
    cached_tokens: Count | None = None


class Usage(msgspec.Struct):
    prompt_tokens: Count = 0
    completion_tokens: Count | None = 0
    prompt_tokens_details: PromptDetails | None = None


class Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None
    text: str | None = None
    delta: dict[str, Any] | None = None

    @property
    def says_something(self) -> bool:
        """Whether there is a token in it; the first chunk of a chat answer only says who speaks."""
        said = {"text": self.text, **(self.delta or {})}
        return any(value for name, value in said.items() if name != "role")


class Answer(msgspec.Struct):
    """The part of a chunk, or of a whole answer, that is counted."""

    choices: list[Choice] | None = None
    usage: Usage | None = None


class Meters:
    """Opens one meter per request, all on the same metrics."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._without_usage = Counter(
            f"{PREFIX}upstream_requests_without_usage",
            "HTTP requests that the upstream worked on without saying how many tokens they had.",
            ["model_name"],
            registry=metrics.registry,
        ).labels(model)

    def open(self, sequences: int, *, arrived: float) -> Meter:
        return Meter(self._metrics, self._without_usage, sequences, arrived)


class Meter:
    """One request, from its arrival to its end. `usage` is None until the upstream has said it.

    was_answered: whether the upstream took the request; set by whoever saw its 200.
    finish_reasons: of every choice, empty while it has none.
    """

    def __init__(self, metrics: Metrics, without_usage: Counter, sequences: int, arrived: float) -> None:
        self._metrics = metrics
        self._without_usage = without_usage
        self._arrived = arrived
        self._watches = [metrics.watch(0, arrived=arrived) for _ in range(sequences)]
        self._sent = False
        self.was_answered = False
        self.finish_reasons = [""] * sequences
        self.usage: Usage | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every choice has ended."""
        return all(self.finish_reasons)

    def left_queue(self) -> None:
        """The request is about to be sent."""
        self._sent = True
        for watch in self._watches:
            watch.left_queue(time.monotonic() - self._arrived)

    def saw(self, answer: dict[str, Any], *, is_chunk: bool) -> None:
        """Count a chunk or a whole answer. Raises msgspec.ValidationError if it has not OpenAI's shape."""
        seen = msgspec.convert(answer, Answer)
        for choice in seen.choices or ():
            if not 0 <= choice.index < len(self._watches):
                continue
            watch = self._watches[choice.index]
            if is_chunk and choice.says_something:
                watch.heard()
            if choice.finish_reason:
                known = choice.finish_reason in FINISH_REASONS  # a label of metrics must not be anything
                self.finish_reasons[choice.index] = choice.finish_reason if known else "other"
                watch.end(self.finish_reasons[choice.index])
        self.usage = seen.usage or self.usage

    def close(self, reason: str) -> None:
        """The request ended; choices that had not are counted with this reason."""
        for watch in self._watches:
            watch.end(reason)
        if self.usage is not None:
            details = self.usage.prompt_tokens_details
            self._metrics.used(
                prompt_tokens=self.usage.prompt_tokens,
                cached_tokens=(details and details.cached_tokens) or 0,
                generation_tokens=self.usage.completion_tokens or 0,
            )
        elif self.was_answered or (self._sent and reason == "abort"):
            self._without_usage.inc()
