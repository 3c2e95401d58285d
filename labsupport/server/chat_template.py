"""Conversations to token ids, by the template that travels in the model's own file.

A template is a program written by whoever made the file, so it runs in Jinja's immutable sandbox, with a
bound on its time and its output. Right means: the ids equal what `transformers` makes of the same
conversation, and nothing that a user writes can become a control token, or a user could end the turn and
speak as the system.
Templates are Jinja as Hugging Face uses it: https://huggingface.co/docs/transformers/chat_templating
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from labsupport.errors import LabsupportError
from labsupport.server.tokenizer import Tokenizer

LONGEST_RENDERING_SECONDS = 2.0
"""Of the processor's time, so that a busy computer does not make a good template a bad one."""
SECONDS_PER_MESSAGE = 0.001
"""More for each message of a long conversation; a plain template takes a tenth of that."""
LARGEST_OPERAND = 10_000


class TemplateRefused(LabsupportError):
    """The template cannot render this conversation: the request is at fault."""


class TemplateBroken(LabsupportError):
    """The template fails, hangs or reaches for what the sandbox forbids: the model file is at fault."""


class ChatTemplate:
    """A model's chat template together with its vocabulary."""

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        """Compile `source`. Raises TemplateBroken if it is no template."""
        self._tokenizer = tokenizer
        environment = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], cache_size=0
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except (TemplateError, RecursionError, SyntaxError) as error:
            raise TemplateBroken(f"the model's chat template cannot be compiled: {error}") from error
        self._cut = _unused_character(source)

    def render(self, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool) -> str:
        """The conversation as one text. Raises TemplateRefused or TemplateBroken."""
        most_seconds = LONGEST_RENDERING_SECONDS + SECONDS_PER_MESSAGE * len(messages)
        deadline = _Deadline(self._template.filename or "<template>", most_seconds)
        try:
            with deadline:
                return self._template.render(
                    messages=[dict(message) for message in messages],
                    add_generation_prompt=add_generation_prompt,
                    bos_token=self._tokenizer.bos,
                    eos_token=self._tokenizer.eos,
                )
        except _Refused as error:
            raise TemplateRefused(f"the model's chat template refuses these messages: {error}") from error
        except Exception as error:
            raise TemplateBroken(
                f"the model's chat template fails: {type(error).__name__}: {error}"
            ) from error

    def encode(
        self,
        messages: Sequence[dict[str, str]],
        *,
        add_generation_prompt: bool = True,
        most_tokens: int | None = None,
    ) -> list[int]:
        """Token ids of the conversation.

        Raises TextTooLong if they are certainly more than `most_tokens`, TemplateRefused or TemplateBroken.

        Control tokens spelled out in a message are cut in two by a character that occurs nowhere else; after
        rendering, the text is tokenized piece by piece at those cuts, so no control token can form across
        them. Conversations without such spellings, nearly all, are tokenized whole.
        """
        cut = _unused_character(self._cut, *(text for message in messages for text in message.values()))
        guarded = [
            {name: self._cut_controls(text, cut) for name, text in message.items()} for message in messages
        ]
        text = self.render(guarded, add_generation_prompt=add_generation_prompt)
        if most_tokens is not None:
            self._tokenizer.refuse_longer_than(text, most_tokens)
        pieces = text.split(cut)
        ids: list[int] = []
        for piece in pieces:
            ids += self._tokenizer.encode(piece, add_special=False, parse_special=True)
        return ids

    def _cut_controls(self, text: str, cut: str) -> str:
        places = [0, *(start + 1 for start, _ in self._tokenizer.control_spans(text)), len(text)]
        return cut.join(text[begin:end] for begin, end in itertools.pairwise(places))


class _Sandbox(ImmutableSandboxedEnvironment):
    """Also bounds the operators with which a short template can ask for gigabytes."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%":
            if isinstance(left, str) and re.search(r"\*|\d{5}", left):
                raise SecurityError("a width in a format is over 9999")
            return super().call_binop(context, operator, left, right)
        for operand in (left, right):
            size = abs(operand) if isinstance(operand, (int, float)) else len(operand)
            if size > LARGEST_OPERAND:
                raise SecurityError(f"an operand of {operator} is over {LARGEST_OPERAND}")
        if operator == "**" and abs(right) > 64:
            raise SecurityError("an exponent is over 64")
        return super().call_binop(context, operator, left, right)


class _Deadline:
    """Ends a template that runs too long, by looking at the clock before each line it executes.

    A thread cannot be killed and a template's loop does not yield; Python's trace hook reaches into it.
    """

    def __init__(self, filename: str, seconds: float) -> None:
        self._filename = filename
        self._seconds = seconds

    def __enter__(self) -> None:
        self._end = time.thread_time() + self._seconds
        self._previous = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._previous)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != self._filename:
            return None
        if time.thread_time() > self._end:
            raise TimeoutError(f"no result after {self._seconds:g} s of computing")
        return self._trace


class _Refused(Exception):
    pass


def _raise_exception(message: str) -> NoReturn:
    raise _Refused(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().astimezone().strftime(form)


def _to_json(value: object, indent: int | None = None) -> str:
    # Jinja's own filter escapes <, > and & for HTML; a prompt is not HTML.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _unused_character(*texts: str) -> str:
    """A private-use character that occurs in none of the texts. Raises TemplateRefused if all occur."""
    taken = set().union(*texts)
    free = next((chr(code) for code in range(0xF0000, 0xFFFFD) if chr(code) not in taken), None)
    if free is None:
        raise TemplateRefused("the messages use every character of Unicode's private plane 15")
    return free
