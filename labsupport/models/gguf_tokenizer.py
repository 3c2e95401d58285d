"""Carry a tokenizer from `tokenizer.json` into GGUF metadata, so that llama.cpp splits text the same way.

Only byte-level BPE is carried over. The rule that cuts text into words before the merges cannot be written
into a GGUF file: llama.cpp has a fixed list of such rules by name (`tokenizer.ggml.pre`), and a wrong name
changes the tokens silently. So a tokenizer whose rule is not known here is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labsupport.anatomy.model_file_error import ModelFileError
from labsupport.errors import LabsupportError

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_RULE_BY_PATTERN = {_WORDS.replace("DIGITS", "{1,3}"): "llama-bpe", _WORDS.replace("DIGITS", ""): "qwen2"}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; an empty one if there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFileError(path, f"it is not valid JSON ({error}).") from None
    if not isinstance(content, dict):
        raise ModelFileError(path, "it is not a JSON object.")
    return content


def pre_tokenizer_name(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name of the rule that cuts text into words."""
    rule = tokenizer.get("pre_tokenizer") or {}
    parts = rule.get("pretokenizers", [rule])
    kinds = [part.get("type") for part in parts]
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"]:
        name = _RULE_BY_PATTERN.get(parts[0].get("pattern", {}).get("Regex", ""))
        if name:
            return name
    raise LabsupportError(
        f"The tokenizer cuts text into words by a rule that has no known name in llama.cpp: {kinds}.",
        allowed="byte-level BPE cut as SmolLM, GPT-2, Llama 3 or Qwen do",
    )


def write_vocabulary(checkpoint: Path, target: Path) -> None:
    """Write a GGUF file of a checkpoint's tokenizer and chat template alone, without a weight.

    Raises what `write_tokenizer` raises, and `ModelFileError` if there is no config.json.
    """
    import gguf

    from labsupport.anatomy import ModelShape
    from labsupport.models.gguf_layout import ARCHITECTURES

    config = read_json(checkpoint / "config.json")
    if not config:
        raise ModelFileError(
            checkpoint / "config.json", "there is no such file: this is no Hugging Face checkpoint."
        )
    shape = ModelShape.from_config(config)
    writer = gguf.GGUFWriter(target, ARCHITECTURES.get(shape.architecture, shape.architecture))
    try:
        writer.add_name(checkpoint.name)
        write_tokenizer(writer, checkpoint, vocabulary=shape.vocabulary)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def write_tokenizer(writer: Any, checkpoint: Path, *, vocabulary: int) -> None:
    """Add vocabulary, merges, special tokens and chat template of a checkpoint to a `gguf.GGUFWriter`.

    `vocabulary` is the number of rows of the embedding; ids that have no token become unused ones.
    """
    path = checkpoint / "tokenizer.json"
    tokenizer = read_json(path)
    model = tokenizer.get("model", {})
    if model.get("type") != "BPE" or not model.get("vocab"):
        raise ModelFileError(path, "it is missing or holds no BPE tokenizer, the kind that can be converted.")
    texts = {number: text for text, number in model["vocab"].items()}
    kinds = dict.fromkeys(texts, _NORMAL)
    for added in tokenizer.get("added_tokens", []):
        texts[added["id"]] = added["content"]
        kinds[added["id"]] = _CONTROL if added.get("special") else _USER_DEFINED
    if max(texts) >= vocabulary:
        raise ModelFileError(path, f"token {max(texts)} has no row in an embedding of {vocabulary} rows.")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_name(tokenizer))
    writer.add_token_list([texts.get(number, f"[PAD{number}]") for number in range(vocabulary)])
    writer.add_token_types([kinds.get(number, _UNUSED) for number in range(vocabulary)])
    writer.add_token_merges(merges)
    _write_special_tokens(writer, checkpoint, {text: number for number, text in texts.items()})


def _write_special_tokens(writer: Any, checkpoint: Path, ids: dict[str, int]) -> None:
    """Begin, end and padding tokens, whether a begin is added, and the chat template."""
    import tokenizers

    config = read_json(checkpoint / "config.json")
    settings = read_json(checkpoint / "tokenizer_config.json")

    def token_id(role: str) -> int | None:
        token = settings.get(f"{role}_token")
        text = token.get("content") if isinstance(token, dict) else token
        number = ids.get(text) if text else config.get(f"{role}_token_id")
        return number[0] if isinstance(number, list) else number

    begin, end, padding = token_id("bos"), token_id("eos"), token_id("pad")
    if begin is not None:
        writer.add_bos_token_id(begin)
    if end is not None:
        writer.add_eos_token_id(end)
    if padding is not None:
        writer.add_pad_token_id(padding)
    first = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode("a").ids
    writer.add_add_bos_token(bool(first) and begin is not None and first[0] == begin)
    writer.add_add_eos_token(False)
    template = checkpoint / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.is_file() else settings.get("chat_template")
    if isinstance(text, str):
        writer.add_chat_template(text)
