"""What is measured of one HTTP request while it is worked on, for `/metrics` and for its account.

Right means: whoever does the work, an engine of ours or an upstream, is measured with the same clock and the
same words; and a number that nobody told us is None, never a guess.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

from labsupport.engine.messages import Delta
from labsupport.server.metrics import Metrics, SequenceWatch
from labsupport.server.usage import Counted, Usage, usage_of


class Meter(abc.ABC):
    """The request's sequences, in the order of its choices, from its arrival to its end."""

    def __init__(self, watches: Sequence[SequenceWatch]) -> None:
        self._watches = watches

    @property
    @abc.abstractmethod
    def usage(self) -> Usage | None:
        """What the request has used so far; None if it has used something and nobody here knows how much."""

    @property
    @abc.abstractmethod
    def finish_reasons(self) -> Sequence[str]:
        """How each choice ended; "" while it has not."""

    @property
    def first_token_at(self) -> float | None:
        """When a token came first, in seconds of the monotonic clock; None if none was seen to come."""
        moments = [watch.first_token_at for watch in self._watches if watch.first_token_at is not None]
        return min(moments, default=None)

    def end(self, reason: str) -> None:
        """The request ended: count this reason for every choice that had none of its own."""
        for watch in self._watches:
            watch.end(reason)


class EngineMeter(Meter):
    """Of a request to an engine of our own, which tells of every token.

    prompt_lengths: in tokens, for each sequence, `choices_per_prompt` in a row for the same prompt.
    """

    def __init__(
        self, metrics: Metrics, prompt_lengths: Sequence[int], *, choices_per_prompt: int, arrived: float
    ) -> None:
        super().__init__([metrics.watch(length, arrived=arrived) for length in prompt_lengths])
        self._counts = [Counted(length) for length in prompt_lengths]
        self._choices_per_prompt = choices_per_prompt

    def saw(self, index: int, delta: Delta) -> None:
        """Count what one delta of one sequence brought."""
        self._watches[index].saw(delta)
        self._counts[index].count(delta)

    @property
    def usage(self) -> Usage:
        return usage_of(self._counts, choices_per_prompt=self._choices_per_prompt)

    @property
    def finish_reasons(self) -> Sequence[str]:
        return [count.finish_reason for count in self._counts]
