"""Prompts of random words with an exact number of tokens, which no cache has seen before.

Text rather than token ids, because not every peer takes ids. Right means: the count is checked with the
model's own vocabulary, and two prompts share no more of their beginning than chance gives.
"""

from __future__ import annotations

import random
import re
import string
from functools import cached_property
from pathlib import Path

from labsupport.errors import LabsupportError
from labsupport.server.tokenizer import Tokenizer

_FEWEST_WORDS = 200
_WORD = re.compile(r" [a-z]{2,}")


class Words:
    """Random text for one model."""

    def __init__(self, gguf: Path) -> None:
        self.tokenizer = Tokenizer(gguf)
        if self.tokenizer.encode("", add_special=True, parse_special=False):
            raise LabsupportError(
                f"{gguf} puts tokens of its own around a text", allowed="a vocabulary without", remedy=""
            )

    @cached_property
    def single_tokens(self) -> list[str]:
        """Words of the vocabulary that are one token each, with the space before them."""
        pieces = (
            self.tokenizer.piece(token).decode("utf-8", "replace") for token in range(self.tokenizer.size)
        )
        return [piece for piece in pieces if _WORD.fullmatch(piece) and self._count(piece) == 1]

    def text(self, tokens: int, chance: random.Random) -> str:
        """A text of exactly so many tokens, at least 2; it begins with a space, so texts can be joined.

        Where the vocabulary has words, each word is a token; where it has bytes alone, each byte is one.
        Raises LabsupportError if the vocabulary is neither.
        """
        if len(self.single_tokens) >= _FEWEST_WORDS:
            text = "".join(chance.choices(self.single_tokens, k=tokens))
        else:
            letters = chance.choices(string.ascii_lowercase, k=tokens)
            place = 0
            while place < tokens - 1:
                letters[place] = " "
                place += chance.randint(4, 8)
            text = "".join(letters)
        if self._count(text) != tokens:
            raise LabsupportError(
                f"a text meant to have {tokens} tokens has {self._count(text)}",
                allowed="a vocabulary of whole words or of bytes",
            )
        return text

    def end_tokens(self) -> list[int]:
        """The tokens that end an answer, for peers that have to be kept from them one by one."""
        import llama_cpp

        vocabulary = llama_cpp.llama_model_get_vocab(self.tokenizer._model)
        return [
            token for token in range(self.tokenizer.size) if llama_cpp.llama_vocab_is_eog(vocabulary, token)
        ]

    def _count(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special=True, parse_special=False))
