"""What no request may ask, checked before anything runs.

Right means: whatever passes here can run to its end, alone, on an empty engine; and the message names what
was given and what is allowed. The client and the engine process both check, each for itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import msgspec

from labsupport.engine.messages import SamplingParams, Submit
from labsupport.errors import LabsupportError

MOST_BIASED_TOKENS = 300
"""As many as OpenAI takes in a `logit_bias` (reported in https://github.com/dottxt-ai/outlines/issues/99)."""


class RequestRefused(LabsupportError):
    """A request that this engine can never run (prompt too long, unknown token, impossible parameter)."""


class Limits(Protocol):
    """What bounds a request: `RunnerLimits` has it in the engine, and `Ready` where the engine is far.

    grammars: whether the runner can hold a draw to one.
    """

    @property
    def context_tokens(self) -> int: ...

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def grammars(self) -> bool: ...


def refuse_impossible(tokens: Sequence[int], params: SamplingParams, limits: Limits) -> None:
    """Raise RequestRefused if a request could never run within these limits."""
    context_tokens, vocabulary_size = limits.context_tokens, limits.vocabulary_size
    _refuse_wrong_types(tokens, params)
    if not tokens:
        raise RequestRefused("the prompt has no tokens", allowed="at least one")
    worst = next((token for token in tokens if not 0 <= token < vocabulary_size), None)
    if worst is not None:
        raise RequestRefused(
            f"the prompt holds token {worst}", allowed=f"0 to {vocabulary_size - 1}, the model's vocabulary"
        )
    if len(tokens) >= context_tokens:
        raise RequestRefused(
            f"the prompt has {len(tokens)} tokens",
            allowed=f"at most {context_tokens - 1}: the context holds {context_tokens}, answer included",
            remedy="Shorten the prompt, or start the engine with a larger context.",
        )
    for name, value, is_allowed, allowed in (
        ("max_tokens", params.max_tokens, params.max_tokens >= 1, "at least 1"),
        ("temperature", params.temperature, 0 <= params.temperature <= 100, "0 (greedy) to 100"),
        ("top_k", params.top_k, 0 <= params.top_k < 2**31, "0 (off) or more"),
        ("top_p", params.top_p, 0 < params.top_p <= 1, "above 0, at most 1 (off)"),
        ("min_p", params.min_p, 0 <= params.min_p <= 1, "0 (off) to 1"),
        ("frequency_penalty", params.frequency_penalty, -2 <= params.frequency_penalty <= 2, "-2 to 2"),
        ("presence_penalty", params.presence_penalty, -2 <= params.presence_penalty <= 2, "-2 to 2"),
        (
            "repetition_penalty",
            params.repetition_penalty,
            0.01 <= params.repetition_penalty <= 100,
            "0.01 to 100; 1 is off",
        ),
        ("logprobs", params.logprobs, params.logprobs is None or 0 <= params.logprobs <= 100, "0 to 100"),
        ("stop", params.stop, all(params.stop), "strings of at least one character"),
    ):
        if not is_allowed:
            raise RequestRefused(f"{name} is {value}", allowed=allowed)
    if params.grammar and (params.ignore_eos or not limits.grammars):
        raise RequestRefused(
            "the answer is to follow a grammar"
            + (
                " and not to end where it is complete" if limits.grammars else ", which this engine cannot do"
            ),
            allowed="a grammar without ignore_eos" if limits.grammars else "no grammar, or the llama engine",
        )
    _refuse_impossible_bias(params.logit_bias, vocabulary_size)
    if len(tokens) + params.max_tokens > context_tokens:
        raise RequestRefused(
            f"the prompt has {len(tokens)} tokens and max_tokens is {params.max_tokens}",
            allowed=f"together at most {context_tokens}, the context",
            remedy=f"Ask for at most {context_tokens - len(tokens)} tokens, or shorten the prompt.",
        )


def _refuse_wrong_types(tokens: Sequence[int], params: SamplingParams) -> None:
    """msgspec checks types where it decodes, so let a message make the trip that it would make anyway."""
    try:
        message = msgspec.msgpack.encode(Submit(request_id="", tokens=tuple(tokens), params=params))
        msgspec.msgpack.decode(message, type=Submit)
    except (msgspec.MsgspecError, OverflowError, TypeError, UnicodeEncodeError) as error:
        raise RequestRefused(f"the request is malformed: {error}") from error
    numbers = (params.temperature, params.top_p, params.min_p, *(bias for _, bias in params.logit_bias))
    if not all(map(math.isfinite, numbers)):
        raise RequestRefused("a sampling parameter is not a finite number")


def _refuse_impossible_bias(logit_bias: Sequence[tuple[int, float]], vocabulary_size: int) -> None:
    if len(logit_bias) > MOST_BIASED_TOKENS:
        raise RequestRefused(
            f"logit_bias names {len(logit_bias)} tokens", allowed=f"at most {MOST_BIASED_TOKENS}"
        )
    if len({token for token, _ in logit_bias}) < len(logit_bias):
        raise RequestRefused("logit_bias names a token twice", allowed="each token once")
    for token, bias in logit_bias:
        if not 0 <= token < vocabulary_size:
            raise RequestRefused(
                f"logit_bias names token {token}",
                allowed=f"0 to {vocabulary_size - 1}, the model's vocabulary",
            )
        if not -100 <= bias <= 100:
            raise RequestRefused(f"logit_bias gives token {token} {bias}", allowed="-100 to 100")
