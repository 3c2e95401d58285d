"""A vocabulary as llama.cpp has it: the bytes of each token, and which of them end an answer."""

from __future__ import annotations

import ctypes
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp

_UNSPELLED = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN


class LlamaVocabulary:
    """The vocabulary of a loaded model. handle: what llama.cpp's functions take."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.size = int(llama_cpp.llama_vocab_n_tokens(handle))
        self.end_tokens = frozenset(
            token for token in range(self.size) if llama_cpp.llama_vocab_is_eog(handle, token)
        )
        self._pieces: dict[int, bytes] = {}

    @classmethod
    def of_file(cls, path: Path) -> LlamaVocabulary:
        """From a GGUF file, without its weights; it stays open until the process ends."""
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        return cls(llama_cpp.llama_model_get_vocab(model))

    def piece(self, token: int) -> bytes:
        """A token's bytes; none for control tokens."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    @cached_property
    def silent_tokens(self) -> frozenset[int]:
        """Control tokens that end nothing: they add no text."""
        tokens = frozenset(
            token
            for token in range(self.size)
            if llama_cpp.llama_vocab_get_attr(self.handle, token) & _UNSPELLED
        )
        return tokens - self.end_tokens

    def _read_piece(self, token: int) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = llama_cpp.llama_token_to_piece(self.handle, token, buffer, size, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            size = -length
