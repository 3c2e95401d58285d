"""What is asked: one prompt with how much may be answered, and prompts to invent or read from a file."""

from __future__ import annotations

import random
import string
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from labsupport.errors import LabsupportError

Messages = list[dict[str, Any]]


class Prompt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question. Either `prompt`, a text or token ids, for `/v1/completions`, or chat `messages`.

    max_tokens: the longest answer, in tokens; None leaves it to the run.
    extra: further fields of the request's body, such as `{"ignore_eos": True}`; None takes a field away.
    """

    prompt: str | list[int] | None = None
    messages: Messages | None = None
    max_tokens: int | None = None
    extra: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise LabsupportError(
                "a prompt must say what is asked, in one way", allowed="either `prompt` or `messages`"
            )

    @property
    def path(self) -> str:
        """The route that answers it."""
        return "/v1/completions" if self.messages is None else "/v1/chat/completions"

    def body(self, *, model: str, max_tokens: int, extra: dict[str, Any]) -> dict[str, Any]:
        """The request's JSON: streamed, and with the server's own count of tokens at the end."""
        asked = {"prompt": self.prompt} if self.messages is None else {"messages": self.messages}
        body = {
            "model": model,
            **asked,
            "max_tokens": self.max_tokens or max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **extra,
            **self.extra,
        }
        return {name: value for name, value in body.items() if value is not None}


def as_prompts(given: Iterable[Prompt | str | list[int] | Messages]) -> Iterator[Prompt]:
    """Prompts from texts, token ids and conversations. Raises LabsupportError for anything else."""
    if isinstance(given, str):
        raise LabsupportError("the prompts are one text", allowed="a list of prompts", remedy="[text]")
    for one in given:
        if isinstance(one, Prompt):
            yield one
        elif isinstance(one, list) and one and isinstance(one[0], dict):
            yield Prompt(messages=one)
        else:
            yield _decoded({"prompt": one}, "a prompt")


def random_words(
    count: int, *, words: int = 60, shared_words: int = 0, seed: int = 0, max_tokens: int | None = None
) -> list[Prompt]:
    """`count` prompts of random five-letter words, of which none shares a beginning with another.

    shared_words: so many words more in front, the same in all prompts, as a system prompt would be.
    """
    chance = random.Random(seed)

    def some(number: int) -> str:
        return " ".join("".join(chance.choices(string.ascii_lowercase, k=5)) for _ in range(number))

    shared = some(shared_words)
    return [Prompt(prompt=f"{shared} {some(words)}".strip(), max_tokens=max_tokens) for _ in range(count)]


def read(file: Path) -> list[Prompt]:
    """Prompts from a file with one JSON value a line: a text, or an object with the fields of `Prompt`."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabsupportError(f"the prompts in {file} cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"line {number} of {file}"
            try:
                value = msgspec.json.decode(line)
            except msgspec.DecodeError as error:
                raise LabsupportError(
                    f"{where} is no JSON: {error}", allowed='"a text" or {"prompt": "a text"} on each line'
                ) from error
            found.append(_decoded(value if isinstance(value, dict) else {"prompt": value}, where))
    return found


def _decoded(value: Any, where: str) -> Prompt:
    try:
        return msgspec.convert(value, Prompt)
    except msgspec.ValidationError as error:
        raise LabsupportError(
            f"{where} is no prompt: {error}",
            allowed="a text, a list of token ids, a list of messages, or a Prompt",
        ) from error
