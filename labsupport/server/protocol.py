"""OpenAI's requests, typed, and checked strictly before anything runs.

Right means: a request that passes here asks only for what this server really does. A parameter that OpenAI
knows and this server does not do yet is refused by name, unless its value switches it off; a parameter that
nobody knows is refused too, because a misspelt `temprature` must not be ignored. What needs the tokenizer
(the length of a prompt) is checked later, in `prompts`.
Source of names and ranges: OpenAI's API reference for chat completions and completions; `top_k`, `min_p`,
`repetition_penalty`, `ignore_eos` and `priority` are vLLM's extensions of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from labsupport.engine.messages import SamplingParams
from labsupport.server.errors import bad_request
from labsupport.server.fields import (
    StopString,
    Strict,
    Text,
    TokenIds,
    TokenIdText,
    TokenLimit,
    few_biases,
    few_prompts,
    not_crowded,
)
from labsupport.server.keys import LARGEST_PRIORITY
from labsupport.server.response_format import ResponseFormat

LARGEST_N = 16
DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's own default on the completions route; chat takes the rest of the context."""
MOST_LABELS = 16
"""Entries of `metadata`, as in OpenAI's API."""


class StreamOptions(Strict):
    """`include_usage`: send one more chunk, with the usage and no choices, before the end."""

    include_usage: bool = False


class GenerationRequest(Strict):
    """What chat and plain completions have in common. None is the same as absent, as in OpenAI's API."""

    model: Text
    max_tokens: TokenLimit | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    logit_bias: (
        Annotated[dict[TokenIdText, Annotated[float, Field(ge=-100, le=100)]], BeforeValidator(few_biases)]
        | None
    ) = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    n: Annotated[int, Field(ge=1, le=LARGEST_N)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    response_format: ResponseFormat | None = None
    priority: Annotated[int, Field(ge=-LARGEST_PRIORITY, le=LARGEST_PRIORITY)] | None = None
    # Labels for the caller's own books; they change nothing here.
    user: str | None = None
    metadata: (
        Annotated[dict[str, str], Field(max_length=MOST_LABELS), BeforeValidator(not_crowded)] | None
    ) = None

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise bad_request(
                "stream_options needs stream=true.", param="stream_options", code="invalid_value"
            )
        return self

    @property
    def choices_per_prompt(self) -> int:
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def _sampling(self, *, max_tokens: int, logprobs: int | None, choice: int) -> SamplingParams:
        """Parameters of one of the n choices. A seed gives each choice its own, or all n would be equal."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        top_k = 0 if self.top_k is None else max(self.top_k, 0)
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else float(self.temperature),
            top_k=top_k,
            top_p=1.0 if self.top_p is None else float(self.top_p),
            min_p=0.0 if self.min_p is None else float(self.min_p),
            frequency_penalty=float(self.frequency_penalty or 0),
            presence_penalty=float(self.presence_penalty or 0),
            repetition_penalty=1.0 if self.repetition_penalty is None else float(self.repetition_penalty),
            logit_bias=tuple((int(token), float(bias)) for token, bias in (self.logit_bias or {}).items()),
            seed=None if self.seed is None else (self.seed + choice) % 2**63,
            stop=stop,
            ignore_eos=bool(self.ignore_eos),
            logprobs=logprobs,
        )


def _refuse_unsupported(given: Any, switched_off: Mapping[str, tuple[Any, ...]]) -> Any:
    """`given` without the unsupported parameters that are switched off. Raises ApiError for the others."""
    if not isinstance(given, dict):
        return given
    for name, values in switched_off.items():
        if given.get(name) is not None and given[name] not in values:
            allowed = " or ".join(str(value) for value in values) or "leave it out"
            raise bad_request(
                f"{name} is not supported by this server yet (allowed: {allowed}).",
                param=name,
                code="unsupported_parameter",
            )
    return {name: value for name, value in given.items() if name not in switched_off}


class TextPart(Strict):
    """A piece of a message. Only text: the models served here see and hear nothing."""

    type: Literal["text"]
    text: Text


class Message(Strict):
    """One turn of a conversation; the list form of `content` is joined by newlines."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(fail_fast=True)]
    name: Text | None = None

    def for_template(self) -> dict[str, str]:
        """As chat templates expect it: plain text, and `system` for OpenAI's newer name `developer`."""
        content = self.content
        text = content if isinstance(content, str) else "\n".join(part.text for part in content)
        named = {} if self.name is None else {"name": self.name}
        return {"role": "system" if self.role == "developer" else self.role, "content": text, **named}


class ChatParameters(GenerationRequest):
    """What `POST /v1/chat/completions` takes, but for the conversation."""

    max_completion_tokens: TokenLimit | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _unsupported(cls, given: Any) -> Any:
        return _refuse_unsupported(given, _CHAT_SWITCHED_OFF)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise bad_request(
                "max_tokens and max_completion_tokens are two names of one limit; give one.",
                param="max_tokens",
                code="invalid_value",
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise bad_request("top_logprobs needs logprobs=true.", param="top_logprobs", code="invalid_value")
        return self

    def completion_limit(self, room: int) -> int:
        """Most tokens to generate, where `room` tokens of context are left after the prompt."""
        return self.max_completion_tokens or self.max_tokens or room

    def sampling(self, *, max_tokens: int, choice: int) -> SamplingParams:
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return self._sampling(max_tokens=max_tokens, logprobs=logprobs, choice=choice)


class ChatRequest(ChatParameters):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]

    @property
    def num_sequences(self) -> int:
        return self.choices_per_prompt


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`: a text, a list of texts, or the same as token ids."""

    prompt: Annotated[
        Text
        | TokenIds
        | Annotated[list[Text], Field(min_length=1, fail_fast=True)]
        | Annotated[list[TokenIds], Field(min_length=1, fail_fast=True)],
        BeforeValidator(few_prompts),
    ]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _unsupported(cls, given: Any) -> Any:
        return _refuse_unsupported(given, _COMPLETION_SWITCHED_OFF)

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """Every prompt of the request, whichever of the four forms it came in."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt[0], int):
            return [prompt]
        return prompt

    @property
    def num_sequences(self) -> int:
        return self.choices_per_prompt * len(self.prompts)

    def completion_limit(self, room: int) -> int:
        """Most tokens to generate, where `room` tokens of context are left after the prompt."""
        return self.max_tokens or min(DEFAULT_COMPLETION_TOKENS, room)

    def sampling(self, *, max_tokens: int, choice: int) -> SamplingParams:
        return self._sampling(max_tokens=max_tokens, logprobs=self.logprobs, choice=choice)


class TokenizeRequest(Strict):
    """`POST /tokenize`, as vLLM has it: either a `prompt` or `messages`."""

    model: Text | None = None
    prompt: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise bad_request("Give either prompt or messages.", param="prompt", code="invalid_value")
        return self


_CHAT_SWITCHED_OFF: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none",),
    "parallel_tool_calls": (),
    "functions": ([],),
    "function_call": ("none",),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
_COMPLETION_SWITCHED_OFF: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}
