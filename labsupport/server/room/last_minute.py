"""Tokens and latencies of the last minute, second by second.

Right means: memory is bounded however many tokens there are, and a quantile is within 2.2 % of one of the
values that were measured: latencies are counted in bins 1/16 of a doubling wide and told by the middle of
theirs, and 2^(1/32) is 1.0219.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

WINDOW_SECONDS = 60
RATE_SECONDS = 5
"""What "tokens per second now" is the mean of."""
_BINS_PER_DOUBLING = 16
_SHORTEST_SECONDS = 1e-6


class LatencyView(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds: the median, what 95 % stayed under, and of how many measurements."""

    median: float
    p95: float
    count: int


class MinuteView(msgspec.Struct, frozen=True, kw_only=True):
    """The last minute, as far as somebody watched.

    generated, prompt: tokens in each whole second, oldest first, the newest one second old at most; up to 60.
    generated_rate, prompt_rate: tokens per second, of the last five of those.
    first_token: from a request's arrival to its first token (TTFT). between_tokens: ITL.
    """

    generated: tuple[int, ...]
    prompt: tuple[int, ...]
    generated_rate: float
    prompt_rate: float
    first_token: LatencyView | None
    between_tokens: LatencyView | None


@dataclass
class _Second:
    generated: int = 0
    prompt: int = 0
    first_token: Counter[int] = field(default_factory=Counter)
    between_tokens: Counter[int] = field(default_factory=Counter)


class LastMinute:
    """Counts from when it is made; what is older than a minute is forgotten. A listener of `Metrics`.

    counts_usage: whether tokens are counted as `used` tells, as answers report them: before an upstream,
        where nobody sees the steps that `tokens` tells of.
    """

    def __init__(self, *, counts_usage: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._counts_usage = counts_usage
        self._clock = clock
        self._began = int(clock()) + 1  # the first whole second
        self._seconds: dict[int, _Second] = {}

    def tokens(self, *, generated: int, prompt: int) -> None:
        """Count tokens that were drawn, and tokens of prompts that were computed."""
        now = self._now()
        now.generated += generated
        now.prompt += prompt

    def used(self, *, prompt_tokens: int, generation_tokens: int) -> None:
        """An answer reports tokens; of the prompt's, those that no cache had."""
        if self._counts_usage:
            self.tokens(generated=generation_tokens, prompt=prompt_tokens)

    def first_token(self, seconds: float) -> None:
        """A request's first token came so long after the request."""
        self._now().first_token[_bin(seconds)] += 1

    def next_token(self, seconds: float) -> None:
        """A further token came so long after the one before."""
        self._now().between_tokens[_bin(seconds)] += 1

    def view(self) -> MinuteView:
        """The minute that ends now."""
        now = int(self._clock())
        self._forget(now)
        nothing = _Second()
        whole = [
            self._seconds.get(second, nothing)
            for second in range(max(self._began, now - WINDOW_SECONDS), now)
        ]
        lately = whole[-RATE_SECONDS:]
        held = self._seconds.values()
        return MinuteView(
            generated=tuple(second.generated for second in whole),
            prompt=tuple(second.prompt for second in whole),
            generated_rate=sum(second.generated for second in lately) / max(len(lately), 1),
            prompt_rate=sum(second.prompt for second in lately) / max(len(lately), 1),
            first_token=_latency([second.first_token for second in held]),
            between_tokens=_latency([second.between_tokens for second in held]),
        )

    def _now(self) -> _Second:
        second = int(self._clock())
        if second not in self._seconds:
            self._forget(second)
            self._seconds[second] = _Second()
        return self._seconds[second]

    def _forget(self, now: int) -> None:
        for second in [second for second in self._seconds if second < now - WINDOW_SECONDS]:
            del self._seconds[second]


def _bin(seconds: float) -> int:
    return math.floor(_BINS_PER_DOUBLING * math.log2(max(seconds, _SHORTEST_SECONDS)))


def _latency(counts: list[Counter[int]]) -> LatencyView | None:
    total: Counter[int] = Counter()
    for count in counts:
        total.update(count)
    if not total:
        return None
    return LatencyView(median=_quantile(total, 0.5), p95=_quantile(total, 0.95), count=total.total())


def _quantile(counts: Counter[int], share: float) -> float:
    """The smallest value with at least `share` of all values at or below it, by the middle of its bin."""
    missing = math.ceil(share * counts.total())
    for number in sorted(counts):
        missing -= counts[number]
        if missing <= 0:
            break
    return float(2 ** ((number + 0.5) / _BINS_PER_DOUBLING))
