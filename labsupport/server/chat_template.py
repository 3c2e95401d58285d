"""Conversations to token ids, by the template that travels in the model's own file.

A template is a program written by whoever made the file, so it runs in a sandbox (`template_sandbox`). Right
means: the ids equal what `transformers` makes of the same conversation, and nothing that a user writes can
become a control token, or a user could end the turn and speak as the system.
Templates are Jinja as Hugging Face uses it: https://huggingface.co/docs/transformers/chat_templating
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from typing import NoReturn

from jinja2 import TemplateError

from labsupport.errors import LabsupportError
from labsupport.server.template_sandbox import Deadline, Sandbox, refuse_wide
from labsupport.server.tokenizer import Tokenizer

LONGEST_RENDERING_SECONDS = 2.0
"""Of the processor's time, so that a busy computer does not make a good template a bad one."""
SECONDS_PER_MESSAGE = 0.001
"""More for each message of a long conversation; a plain template takes a tenth of that."""


class TemplateRefused(LabsupportError):
    """The template cannot render this conversation: the request is at fault."""


class TemplateBroken(LabsupportError):
    """The template fails, hangs or reaches for what the sandbox forbids: the model file is at fault."""


class ChatTemplate:
    """A model's chat template together with its vocabulary."""

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        """Compile `source`. Raises TemplateBroken if it is no template."""
        self._tokenizer = tokenizer
        environment = Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], cache_size=0
        )
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
        deadline = Deadline(self._template.filename or "<template>", most_seconds)
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
        if most_tokens is not None:  # first, for the other steps look at every character
            self._tokenizer.refuse_longer_than(
                "".join(message.get("content", "") for message in messages), most_tokens
            )
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


class _Refused(Exception):
    pass


def _raise_exception(message: str) -> NoReturn:
    raise _Refused(message)


def _strftime_now(form: str) -> str:
    refuse_wide(form)  # glibc's takes a width
    return datetime.datetime.now().astimezone().strftime(form)


def _unused_character(*texts: str) -> str:
    """A private-use character that occurs in none of the texts. Raises TemplateRefused if all occur."""
    taken = set().union(*texts)
    free = next((chr(code) for code in range(0xF0000, 0xFFFFD) if chr(code) not in taken), None)
    if free is None:
        raise TemplateRefused("the messages use every character of Unicode's private plane 15")
    return free
