"""OpenAI's responses, whole and in chunks, made from what the engine sent.

Right means: the texts of a stream's chunks, joined, are the text of the same answer not streamed, and a
request for logprobs gets one entry per generated token. Source of shapes: OpenAI's API reference.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from labsupport.engine.messages import Delta, TokenLogprob
from labsupport.server.usage import Counted, Usage

LOWEST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON cannot say; vLLM uses the same number."""


class ChatMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(BaseModel):
    index: int
    message: ChatMessage
    logprobs: dict[str, Any] | None
    finish_reason: str


class ChatCompletion(BaseModel):
    """The whole answer of `/v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextChoice(BaseModel):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: str


class TextCompletion(BaseModel):
    """The whole answer of `/v1/completions`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


@dataclass
class Collected(Counted):
    """What one sequence has said so far."""

    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    spelled_characters: int = 0

    def add(self, delta: Delta) -> None:
        self.count(delta)
        self.text.append(delta.text)
        self.logprobs += delta.logprobs
        self.spelled_characters += sum(len(_spelling(entry.text)) for entry in delta.logprobs)


class AnswerFormat(Protocol):
    """How one of the two routes writes an answer; `id` is the answer's."""

    id: str

    def whole(self, sequences: Sequence[Collected], usage: Usage) -> BaseModel: ...

    def opening(self, index: int) -> dict[str, Any] | None: ...

    def chunk(self, index: int, delta: Delta, *, offset: int) -> dict[str, Any]: ...

    def usage_chunk(self, usage: Usage) -> dict[str, Any]: ...


def new_id(prefix: str) -> str:
    """The id of an answer, which no other answer has."""
    return f"{prefix}-{uuid.uuid4().hex}"


class _Format:
    """The head that all chunks of one answer share."""

    prefix: str
    chunk_object: str

    def __init__(self, model: str, *, with_logprobs: bool, include_usage: bool) -> None:
        self.id = new_id(self.prefix)
        self.created = int(time.time())
        self.model = model
        self._with_logprobs = with_logprobs
        # Once usage is asked for, every chunk has the field, and all but the last say null.
        self._usage: dict[str, None] = {"usage": None} if include_usage else {}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        head = {"id": self.id, "object": self.chunk_object, "created": self.created, "model": self.model}
        return {**head, "choices": choices, **self._usage}

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        return self._chunk([]) | {"usage": usage.model_dump()}


class ChatFormat(_Format):
    """Answers of `/v1/chat/completions`."""

    prefix = "chatcmpl"
    chunk_object = "chat.completion.chunk"

    def whole(self, sequences: Sequence[Collected], usage: Usage) -> ChatCompletion:
        choices = [
            ChatChoice(
                index=index,
                message=ChatMessage(content="".join(sequence.text)),
                logprobs=self._logprobs(sequence.logprobs),
                finish_reason=sequence.finish_reason,
            )
            for index, sequence in enumerate(sequences)
        ]
        return ChatCompletion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )

    def opening(self, index: int) -> dict[str, Any]:
        """The chunk that says who speaks."""
        delta = {"role": "assistant", "content": ""}
        return self._chunk([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}])

    def chunk(self, index: int, delta: Delta, *, offset: int) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": {"content": delta.text} if delta.text or not delta.finish_reason else {},
            "logprobs": self._logprobs(delta.logprobs),
            "finish_reason": delta.finish_reason,
        }
        return self._chunk([choice])

    def _logprobs(self, entries: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        content = [
            {
                **_token(entry.text, entry.logprob),
                "top_logprobs": [_token(text, logprob) for _, text, logprob in entry.top],
            }
            for entry in entries
        ]
        return {"content": content, "refusal": None}


class CompletionFormat(_Format):
    """Answers of `/v1/completions`."""

    prefix = "cmpl"
    chunk_object = "text_completion"

    def whole(self, sequences: Sequence[Collected], usage: Usage) -> TextCompletion:
        choices = [
            TextChoice(
                index=index,
                text="".join(sequence.text),
                logprobs=self._logprobs(sequence.logprobs, 0),
                finish_reason=sequence.finish_reason,
            )
            for index, sequence in enumerate(sequences)
        ]
        return TextCompletion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )

    def opening(self, index: int) -> None:
        """Plain completions begin with their first text."""

    def chunk(self, index: int, delta: Delta, *, offset: int) -> dict[str, Any]:
        choice = {
            "index": index,
            "text": delta.text,
            "logprobs": self._logprobs(delta.logprobs, offset),
            "finish_reason": delta.finish_reason,
        }
        return self._chunk([choice])

    def _logprobs(self, entries: Sequence[TokenLogprob], offset: int) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        tokens = [_spelling(entry.text) for entry in entries]
        offsets = [offset]
        for token in tokens:
            offsets.append(offsets[-1] + len(token))
        return {
            "tokens": tokens,
            "token_logprobs": [_finite(entry.logprob) for entry in entries],
            "top_logprobs": [_top(entry) for entry in entries],
            "text_offset": offsets[:-1],
        }


def _token(text: bytes, logprob: float) -> dict[str, Any]:
    # Bytes that are half a character show as a replacement character; `bytes` has them as they are.
    return {"token": text.decode("utf-8", "replace"), "logprob": _finite(logprob), "bytes": list(text)}


def _top(entry: TokenLogprob) -> dict[str, float]:
    """The likeliest, and the one that was drawn if it is not among them, as OpenAI has it.

    Control tokens are all spelled as nothing: the likeliest of them stands for all.
    """
    found: dict[str, float] = {}
    for text, logprob in [*((text, logprob) for _, text, logprob in entry.top), (entry.text, entry.logprob)]:
        found.setdefault(_spelling(text), _finite(logprob))
    return found


def _spelling(text: bytes) -> str:
    """A token as a key: its text, or OpenAI's `bytes:\\xe2\\x98` where it is part of a character."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text)


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST_LOGPROB)
