"""What is counted of one request that the upstream answers.

Right means: tokens are those that the upstream's own `usage` says, once, whether our client asked to see it
or not, and in a failure as in an answer. Where the upstream never said, because it failed, broke off or was
left by the client, no guess is counted: the row in the ledger has no numbers, which is not the same as zeros,
the request is in `upstream_requests_without_usage`, and its estimate stays charged to its key's limit. Zeros
are for what was surely not worked on (`errors.Refused`).

LiteLLM's proxy, a gateway of this kind, counts the pieces of a stream that broke off with a
tokenizer of its own, and gives a request that failed whole back as unused
(https://github.com/BerriAI/litellm/pull/30788, and the discussion in /pull/35752). The first would be a guess
here, where nobody has the model's tokenizer; the second makes a request that fails after the work free of
its key's limit, as often as it is asked for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from prometheus_client import Counter

from labsupport.server.meter import Meter
from labsupport.server.metrics import PREFIX, Metrics
from labsupport.server.upstream.running_usage import RunningUsage
from labsupport.server.usage import Usage

FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call", "abort"})
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""2^53: no answer is so long, and neither SQLite nor a 64-bit float can hold every number above it."""
_NOTHING = Usage.of(prompt_tokens=0, cached_tokens=0, completion_tokens=0)


class PromptDetails(msgspec.Struct):
    cached_tokens: Count | None = None


class SaidUsage(msgspec.Struct):
    """`usage`, which some servers leave empty until the last chunk."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None

    def read(self) -> Usage | None:
        """None if it does not say both numbers. There cannot be more tokens cached than there are."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        cached_tokens = (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0
        return Usage.of(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=min(cached_tokens, self.prompt_tokens),
            completion_tokens=self.completion_tokens,
        )


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
    usage: SaidUsage | None = None


class Failure(msgspec.Struct):
    """The part of an error that is counted."""

    usage: SaidUsage | None = None


class Meters:
    """Opens one meter per request, all on the same metrics."""

    def __init__(self, metrics: Metrics, model: str, *, has_running_usage: bool) -> None:
        """has_running_usage: whether each chunk tells what its own choice has used (see `running_usage`)."""
        self._metrics = metrics
        self._has_running_usage = has_running_usage
        self._without_usage = Counter(
            f"{PREFIX}upstream_requests_without_usage",
            "HTTP requests that the upstream was sent and may have worked on, "
            "and never said how many tokens they had.",
            ["model_name"],
            registry=metrics.registry,
        ).labels(model)

    def open(self, sequences: int, *, arrived: float, choices_per_prompt: int) -> UpstreamMeter:
        running = RunningUsage(choices_per_prompt) if self._has_running_usage else None
        return UpstreamMeter(self._metrics, self._without_usage, sequences, arrived=arrived, running=running)


class UpstreamMeter(Meter):
    """One request, from its arrival to its end: used nothing until it is sent, and then what is not known."""

    def __init__(
        self,
        metrics: Metrics,
        without_usage: Counter,
        sequences: int,
        *,
        arrived: float,
        running: RunningUsage | None,
    ) -> None:
        super().__init__([metrics.watch(0, arrived=arrived) for _ in range(sequences)])
        self._metrics = metrics
        self._without_usage = without_usage
        self._arrived = arrived
        self._usage: Usage | None = _NOTHING
        self._has_begun = False
        self._running = running
        self._finish_reasons = [""] * sequences

    @property
    def usage(self) -> Usage | None:
        return self._usage

    @property
    def finish_reasons(self) -> Sequence[str]:
        return self._finish_reasons

    @property
    def is_complete(self) -> bool:
        """Whether every choice has ended."""
        return all(self._finish_reasons)

    @property
    def awaits_usage(self) -> bool:
        """Whether the answer is complete and only its usage has still to come."""
        return self.is_complete and self._usage is None

    def sends(self) -> None:
        """The request is about to be sent; from here on the upstream alone knows what it uses."""
        self._usage = None
        for watch in self._watches:
            watch.left_queue(time.monotonic() - self._arrived)

    def was_refused(self) -> None:
        """The upstream did not work on it, as far as it has not shown otherwise."""
        if self._usage is None and not self._has_begun:
            self._usage = _NOTHING

    def saw_failure(self, body: bytes | bytearray) -> None:
        """Count what an error says was used, if it says so in a form that can be read."""
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            said = msgspec.json.decode(body, type=Failure)
            self._usage = (said.usage and said.usage.read()) or self._usage

    def saw(self, answer: dict[str, Any], *, is_chunk: bool) -> None:
        """Count a chunk or a whole answer. Raises msgspec.ValidationError if it has not OpenAI's shape."""
        seen = msgspec.convert(answer, Answer)
        self._has_begun = True
        for choice in seen.choices or ():
            if not 0 <= choice.index < len(self._watches):
                continue
            watch = self._watches[choice.index]
            if is_chunk and choice.says_something:
                watch.heard()
            if choice.finish_reason:
                known = choice.finish_reason in FINISH_REASONS  # a label of metrics must not be anything
                self._finish_reasons[choice.index] = choice.finish_reason if known else "other"
                watch.end(self._finish_reasons[choice.index])
        used = seen.usage and seen.usage.read()
        if used and is_chunk and self._running and seen.choices:
            index = seen.choices[0].index
            used = self._running.saw(index, used) if 0 <= index < len(self._watches) else None
        self._usage = used or self._usage

    def end(self, reason: str) -> None:
        """As every meter, and count what the upstream said was used."""
        super().end(reason)
        if self._usage is None:
            self._without_usage.inc()
        else:
            self._metrics.used(
                prompt_tokens=self._usage.prompt_tokens,
                cached_tokens=self._usage.prompt_tokens_details.cached_tokens,
                generation_tokens=self._usage.completion_tokens,
            )
