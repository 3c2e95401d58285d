"""Text to token ids, from a GGUF's vocabulary alone: no weights are loaded in the HTTP process.

Right means: the same ids as the engine and the model's training would give, and text that only looks like a
control token never becomes one unless the caller asks for it. The vocabulary is llama.cpp's own, opened with
`vocab_only`; measured against the tokenizers library in tests/server/test_tokenizer.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import llama_cpp

from labsupport.errors import LabsupportError

MOST_CONTROL_SPELLINGS = 10_000
"""In one text. llama.cpp's tokenizer takes time with the square of their number: 0.2 s for so many, 3 s for
four times as many (measured beside a busy neighbour), and nobody can interrupt it."""

_QUIET = llama_cpp.llama_log_callback(lambda level, text, data: None)


class VocabularyError(LabsupportError):
    """A file from which no vocabulary can be read."""


class TextTooLong(LabsupportError):
    """A text that must be longer than any context, whatever its tokens turn out to be."""


class Tokenizer:
    """The vocabulary of one GGUF file; safe to use from several threads.

    bos, eos: the texts of the tokens that begin a text and end a turn, "" where the model has none.
    """

    def __init__(self, path: Path) -> None:
        """Read the vocabulary. Raises VocabularyError if the file is missing, damaged or has none."""
        llama_cpp.llama_log_set(_QUIET, None)  # what it would print, the errors here say better
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        self._model = (
            llama_cpp.llama_model_load_from_file(str(path).encode(), parameters) if path.is_file() else None
        )
        if not self._model:
            raise VocabularyError(
                f"no vocabulary can be read from {path}",
                allowed="a complete GGUF file of a language model",
                remedy="`labsupport models verify NAME` checks a file and says how to get it again.",
            )
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self.size = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        self.bos = self._text_of(llama_cpp.llama_vocab_bos(self._vocabulary))
        self.eos = self._text_of(llama_cpp.llama_vocab_eos(self._vocabulary))

    def metadata(self, key: str) -> str | None:
        """One entry of the file's metadata as text, or None: `tokenizer.chat_template`, `general.name`, …"""
        length = llama_cpp.llama_model_meta_val_str(self._model, key.encode(), None, 0)
        if length < 0:
            return None
        buffer = llama_cpp.ctypes.create_string_buffer(length + 1)
        llama_cpp.llama_model_meta_val_str(self._model, key.encode(), buffer, length + 1)
        return buffer.raw[:length].decode("utf-8", "replace")

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of `text`.

        add_special: put the model's own beginning and end around it, if its vocabulary says so.
        parse_special: read `<|im_end|>` and its like as the control tokens that they spell.

        Raises TextTooLong for over MOST_CONTROL_SPELLINGS of those.
        """
        if parse_special:
            self._refuse_crowded(text)
        data = text.encode("utf-8")
        room = len(data) + 8
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(
            self._vocabulary, data, len(data), ids, room, add_special, parse_special
        )
        if count < 0:
            raise VocabularyError(
                f"a text of {len(data)} bytes needs {-count} tokens, over the {room} expected"
            )
        return list(ids[:count])

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; a control token's spelling."""
        size = 64
        while True:
            buffer = llama_cpp.ctypes.create_string_buffer(size)
            length = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, True)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def is_control(self, token: int) -> bool:
        """Whether a token steers (ends a turn, begins a text) rather than spells."""
        return bool(llama_cpp.llama_vocab_is_control(self._vocabulary, token))

    @cached_property
    def longest_piece_bytes(self) -> int:
        """The longest that one token can be: a text of N bytes has at least N / this many tokens."""
        return max(len(self.piece(token)) for token in range(self.size))

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """The spellings of all control tokens."""
        return tuple(
            text for token in range(self.size) if self.is_control(token) and (text := self._text_of(token))
        )

    def refuse_longer_than(self, text: str, tokens: int) -> None:
        """Raise TextTooLong if `text` cannot possibly fit `tokens`: cheaper than tokenizing megabytes."""
        length = len(text.encode("utf-8"))
        least = -(-length // self.longest_piece_bytes)
        if least > tokens:
            raise TextTooLong(
                f"the prompt has at least {least} tokens ({length} bytes)", allowed=f"at most {tokens} tokens"
            )

    def _refuse_crowded(self, text: str) -> None:
        if len(text) < MOST_CONTROL_SPELLINGS:
            return
        spelled = sum(text.count(control) for control in self.control_texts)
        if spelled > MOST_CONTROL_SPELLINGS:
            raise TextTooLong(
                f"the prompt spells out {spelled} control tokens", allowed=f"at most {MOST_CONTROL_SPELLINGS}"
            )

    def control_spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where a control token is spelled out in `text`, overlapping spellings included."""
        for match in self._control_pattern.finditer(text):
            yield match.start(), match.start() + len(match[1])

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.control_texts, key=len, reverse=True)
        # A lookahead matches without consuming, so that a spelling inside another one is found too.
        return re.compile(f"(?=({'|'.join(map(re.escape, longest_first))}))" if longest_first else "(?!)")

    def _text_of(self, token: int) -> str:
        if token < 0:
            return ""
        text = llama_cpp.llama_vocab_get_text(self._vocabulary, token)
        return text.decode("utf-8", "replace") if text else ""
