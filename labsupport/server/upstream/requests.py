"""Requests that go on to an upstream: checked as ours are, except for what only our engine cannot do.

Right means: a value that we know to be impossible is our 400, and the upstream is not asked; a parameter of
OpenAI's API, or one of vLLM's that bears on sampling alone, goes through as it came; any other name is
refused, because many servers ignore what they do not know, and some read files, addresses or templates out of
parameters of their own. Refused are also those of OpenAI's that cost by something else than the token
(`web_search_options`), or change what a token costs (`service_tier`, but for the default): the ledger counts
tokens, and the difference would be whoever's who has the account with the upstream.
Source of names: OpenAI's Python client (a test compares them), and vLLM's
`entrypoints/openai/*/protocol.py`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from labsupport.server.errors import bad_request
from labsupport.server.fields import Strict, Text
from labsupport.server.protocol import ChatParameters, CompletionRequest
from labsupport.server.upstream.config import CONTINUOUS_USAGE, PRIORITY, UpstreamConfig

_OF_BOTH = {
    "frequency_penalty", "presence_penalty", "logit_bias", "response_format",
    # vLLM's
    "repetition_penalty", "min_tokens", "stop_token_ids", "include_stop_str_in_output", "allowed_token_ids",
    "bad_words", "skip_special_tokens", "structured_outputs", "thinking_token_budget", "return_token_ids",
}  # fmt: skip
_UNCHECKED = {"logit_bias", "response_format"}
"""Whether these are possible is for the upstream to say, though our own engine has an opinion on its own."""
PASSED_IN_CHAT = _OF_BOTH | {
    "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "modalities", "audio",
    "prediction", "reasoning_effort", "verbosity", "store", "moderation", "safety_identifier",
    "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    # vLLM's
    "chat_template_kwargs", "include_reasoning",
}  # fmt: skip
PASSED_IN_COMPLETION = _OF_BOTH | {"echo", "suffix"}


class RelayedMessage(Strict):
    """One turn of a conversation. What its parts and tool calls may hold is for the upstream to say."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    name: Text | None = None
    tool_calls: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    tool_call_id: Text | None = None
    function_call: dict[str, Any] | None = None
    refusal: Text | None = None


class RelayedChat(ChatParameters):
    """`POST /v1/chat/completions`, on its way to an upstream."""

    messages: Annotated[list[RelayedMessage], Field(min_length=1, fail_fast=True)]

    @model_validator(mode="before")
    @classmethod
    def _passed(cls, given: Any) -> Any:
        # before the base class refuses them
        return _without(PASSED_IN_CHAT - cls.model_fields.keys() | _UNCHECKED, given)

    @property
    def sequences(self) -> int:
        return self.choices_per_prompt


class RelayedCompletion(CompletionRequest):
    """`POST /v1/completions`, on its way to an upstream."""

    @model_validator(mode="before")
    @classmethod
    def _passed(cls, given: Any) -> Any:
        return _without(PASSED_IN_COMPLETION - cls.model_fields.keys() | _UNCHECKED, given)

    @property
    def sequences(self) -> int:
        return self.choices_per_prompt * len(self.prompts)


def refuse_unknown_to(upstream: UpstreamConfig, asked: RelayedChat | RelayedCompletion) -> None:
    """Raise ApiError 400 for what the client asks for and the upstream is not known to understand."""
    if asked.priority and PRIORITY not in upstream.knows:
        raise bad_request(
            "priority is not supported here: the server that does the work is not known to understand it "
            "(allowed: 0).",
            param="priority",
            code="unsupported_parameter",
        )


def body_for(upstream: UpstreamConfig, given: dict[str, Any], *, stream: bool, priority: int) -> bytes:
    """The body to send: what the client gave, but the upstream's name for the model, and usage asked for.

    priority: of the request; left out where it is 0, which is what a server without priorities does anyhow,
        and where the upstream is not known to understand it.

    Raises ApiError 400 for what JSON allows to write and nobody can read: NaN, half a surrogate pair.
    """
    body = given | {"model": upstream.model}
    body.pop(PRIORITY, None)
    if priority and PRIORITY in upstream.knows:
        body[PRIORITY] = priority
    if stream:
        wanted = {"include_usage": True}
        if CONTINUOUS_USAGE in upstream.knows:
            wanted[CONTINUOUS_USAGE] = True
        body["stream_options"] = (given.get("stream_options") or {}) | wanted
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise bad_request(
            "The body holds NaN, an infinity, a lone surrogate or too deep a nesting.", code="invalid_json"
        ) from error


def _without(names: set[str], given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    return {name: value for name, value in given.items() if name not in names}
