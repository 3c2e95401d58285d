"""The tokenizer gives back any text, cuts numbers into digits, and writes chats as the template says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsupport.pocket import tokenizer as pocket_tokenizer

WEIGHTS = Path(pocket_tokenizer.__file__).with_name("weights")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(WEIGHTS)


@pytest.fixture(scope="module")
def bare() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))


@given(text=st.text(max_size=60))
def test_any_text_comes_back_as_it_was(bare: Any, text: str) -> None:
    assert bare.decode(bare.encode(text).ids) == text


@given(number=st.integers(min_value=0, max_value=10**12))
def test_a_number_is_one_token_per_digit(bare: Any, number: int) -> None:
    assert bare.encode(str(number)).tokens == list(str(number))


def test_the_vocabulary_is_small_and_special_tokens_are_single(bare: Any) -> None:
    assert bare.get_vocab_size() == pocket_tokenizer.VOCABULARY_SIZE <= 2048
    for expected, mark in enumerate(pocket_tokenizer.SPECIAL_TOKENS):
        assert bare.encode(mark).ids == [expected]


def test_the_chat_template_writes_what_training_showed(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a token?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == pocket_tokenizer.user_turn("What is a token?", system="Be brief.")
    answered = [
        *messages,
        {"role": "assistant", "content": "A piece."},
        {"role": "user", "content": "Thanks"},
    ]
    text = tokenizer.apply_chat_template(answered, tokenize=False, add_generation_prompt=True)
    following = "A piece.<|im_end|>\n" + pocket_tokenizer.user_turn("Thanks")
    assert text == pocket_tokenizer.user_turn("What is a token?", system="Be brief.") + following


def test_the_same_texts_give_the_same_tokenizer() -> None:
    texts = ["The ledger-api was down for 12 minutes.", "What is the value of amber-otter?"] * 20
    assert pocket_tokenizer.train(texts).to_str() == pocket_tokenizer.train(texts).to_str()


def test_the_end_of_a_turn_ends_generation(tokenizer: Any) -> None:
    assert tokenizer.eos_token == pocket_tokenizer.TURN_END
    assert tokenizer.convert_tokens_to_ids(pocket_tokenizer.TURN_END) == tokenizer.eos_token_id == 2
