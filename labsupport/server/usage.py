"""What a request has used, in tokens, as answers, limits, the ledger and bills count it.

Right means: usage counts every generated token, the end-of-turn token included, because each cost a step.
Source of the shape: OpenAI's API reference; `prompt_tokens_details.cached_tokens` is part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel

from labsupport.engine.messages import Delta


class PromptTokensDetails(BaseModel):
    cached_tokens: int


class Usage(BaseModel):
    """`cached_tokens` are the prompt tokens that a shared prefix saved from being computed."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, *, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> Self:
        return cls(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=cached_tokens),
        )


@dataclass
class Counted:
    """What one sequence has used so far."""

    prompt_tokens: int
    num_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: str = ""

    def count(self, delta: Delta) -> None:
        self.num_tokens += len(delta.tokens)
        self.cached_tokens = delta.cached_tokens
        self.finish_reason = delta.finish_reason or self.finish_reason

    @property
    def has_begun(self) -> bool:
        return self.num_tokens > 0 or bool(self.finish_reason)


def usage_of(sequences: Sequence[Counted], *, choices_per_prompt: int) -> Usage:
    """Sums over a request. A prompt with n choices counts once, as in OpenAI's API, when one has begun."""
    prompts = [
        sequences[first : first + choices_per_prompt]
        for first in range(0, len(sequences), choices_per_prompt)
    ]
    firsts = [begun[0] for choices in prompts if (begun := [one for one in choices if one.has_begun])]
    return Usage.of(
        prompt_tokens=sum(sequence.prompt_tokens for sequence in firsts),
        cached_tokens=sum(sequence.cached_tokens for sequence in firsts),
        completion_tokens=sum(sequence.num_tokens for sequence in sequences),
    )
