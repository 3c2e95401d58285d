"""What a checkpoint's tokens spell, and which of them end an answer.

Right means: the same bytes as llama.cpp gives for the same model, so that both engines show the same text: a
control token is empty, and any other is its bytes, whole characters or not. Only byte-level BPE is read, as
in `models.gguf_tokenizer`, whose file the HTTP process tokenizes with.
"""

from __future__ import annotations

from pathlib import Path

from labsupport.anatomy.model_file_error import ModelFileError
from labsupport.models.gguf_tokenizer import read_json


class Vocabulary:
    """The vocabulary of a checkpoint's `tokenizer.json`, for ids below `size`."""

    def __init__(self, checkpoint: Path, *, size: int) -> None:
        """Raises ModelFileError if the tokenizer is missing, no byte-level BPE, or larger than the model."""
        file = checkpoint / "tokenizer.json"
        tokenizer = read_json(file)
        model = tokenizer.get("model", {})
        if model.get("type") != "BPE" or not model.get("vocab"):
            raise ModelFileError(
                file, "it is missing or holds no BPE tokenizer, the kind that can be served."
            )
        self._pieces = [b""] * size  # ids without a token stay empty
        bytes_of = _bytes_by_symbol()
        added = {entry["id"]: entry for entry in tokenizer.get("added_tokens", [])}
        try:
            for text, token in model["vocab"].items():
                if token not in added:
                    self._pieces[token] = bytes(bytes_of[symbol] for symbol in text)
            for token, entry in added.items():
                self._pieces[token] = b"" if entry.get("special") else entry["content"].encode()
        except KeyError as error:
            raise ModelFileError(file, f"{error} is no symbol of byte-level BPE.") from None
        except IndexError:
            raise ModelFileError(file, f"it has tokens beyond the {size} of the model.") from None
        ids = model["vocab"] | {entry["content"]: token for token, entry in added.items()}
        self.end_tokens = _end_tokens(checkpoint, ids)

    def piece(self, token: int) -> bytes:
        """A token's bytes; none for control tokens."""
        return self._pieces[token]


def _end_tokens(checkpoint: Path, ids: dict[str, int]) -> frozenset[int]:
    """Where `generate` would stop: by generation_config.json, config.json and the tokenizer's own end."""
    ends: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        given = read_json(checkpoint / name).get("eos_token_id")
        ends.update(given if isinstance(given, list) else [] if given is None else [given])
    token = read_json(checkpoint / "tokenizer_config.json").get("eos_token")
    text = token.get("content") if isinstance(token, dict) else token
    if text in ids:
        ends.add(ids[text])
    return frozenset(ends)


def _bytes_by_symbol() -> dict[str, int]:
    """The byte that each printable character of a byte-level vocabulary stands for, as GPT-2 chose them."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + place): byte for place, byte in enumerate(hidden)
    }
