"""Tokenizing from the vocabulary alone gives what the tokenizers library gives, and loads no weights."""

from __future__ import annotations

import time

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference

from labsupport import models
from labsupport.server.tokenizer import TextTooLong, Tokenizer, VocabularyError


@pytest.fixture(scope="module", params=["a whole model", "a vocabulary alone"])
def tokenizer(request, gguf_file):
    return Tokenizer(gguf_file if request.param == "a whole model" else models.vocabulary("pocket"))


@pytest.fixture(scope="module")
def reference():
    return Reference.from_file(str(models.checkpoint("pocket") / "tokenizer.json"))


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
def test_any_text_becomes_the_ids_of_the_tokenizers_library(tokenizer, reference, text):
    assert tokenizer.encode(text, add_special=False, parse_special=True) == reference.encode(text).ids


@pytest.mark.parametrize(
    "text",
    [
        "2024-11-21 08:15",
        "p99 = 1,250 ms",
        "  indented\n\tlines\n\n",
        "I've, they'll, isn't",
        "naïve 🙂🙃",
        "\0",
    ],
)
def test_ordinary_text_comes_back_byte_for_byte(tokenizer, text):
    ids = tokenizer.encode(text, add_special=False, parse_special=False)

    assert b"".join(map(tokenizer.piece, ids)) == text.encode()


def test_control_tokens_are_read_only_when_asked(tokenizer):
    parsed = tokenizer.encode("<|im_end|>", add_special=False, parse_special=True)
    spelled = tokenizer.encode("<|im_end|>", add_special=False, parse_special=False)

    assert len(parsed) == 1
    assert tokenizer.is_control(parsed[0])
    assert len(spelled) > 1
    assert not any(map(tokenizer.is_control, spelled))


def test_overlapping_spellings_are_all_found(tokenizer):
    text = "a<|im_end|><|im_end|>b<|im_<|im_start|>"

    assert [text[begin:end] for begin, end in tokenizer.control_spans(text)] == [
        "<|im_end|>",
        "<|im_end|>",
        "<|im_start|>",
    ]


def test_no_weights_are_loaded(tmp_path):
    # Given a model far larger than this computer's memory, whose file has a hole where the weights would be
    path = tmp_path / "huge.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["a", "b", "ab"])
    writer.add_token_merges(["a b"])
    writer.add_tensor_info("output.weight", (2**20, 2**18), np.dtype(np.float16), 2**39)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 2**39 + 4096)

    # When its vocabulary is opened
    tokenizer = Tokenizer(path)

    # Then it tokenizes
    assert tokenizer.encode("ab", add_special=False, parse_special=False) == [2]


def test_a_file_without_a_vocabulary_is_one_clear_error(tmp_path):
    for content in (b"", b"GGUF", b"not a model at all" * 100):
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(content)
        with pytest.raises(VocabularyError, match=r"broken\.gguf"):
            Tokenizer(broken)
    with pytest.raises(VocabularyError, match=r"missing\.gguf"):
        Tokenizer(tmp_path / "missing.gguf")


def test_a_text_is_known_to_be_too_long_without_tokenizing_it(tokenizer):
    text = "a" * 10_000_000
    begin = time.monotonic()

    with pytest.raises(TextTooLong, match="10000000 bytes"):
        tokenizer.refuse_longer_than(text, 2048)

    assert time.monotonic() - begin < 5


def test_the_bound_never_refuses_what_fits(tokenizer):
    longest = max(range(tokenizer.size), key=lambda token: len(tokenizer.piece(token)))
    text = tokenizer.piece(longest).decode() * 100

    tokenizer.refuse_longer_than(text, 100)
