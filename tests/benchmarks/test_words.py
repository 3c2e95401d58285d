"""Prompts have exactly the tokens that were asked for, and no cache has seen them."""

from __future__ import annotations

import random

import pytest

from benchmarks.loads import LOADS
from benchmarks.words import Words
from labsupport import models


@pytest.fixture(scope="module")
def words() -> Words:
    return Words(models.path("pocket", "q4_k_m"))


def count(words: Words, text: str) -> int:
    return len(words.tokenizer.encode(text, add_special=True, parse_special=True))


@pytest.mark.parametrize("tokens", [2, 3, 17, 128, 1500])
def test_a_text_has_exactly_so_many_tokens(words: Words, tokens: int) -> None:
    assert count(words, words.text(tokens, random.Random(tokens))) == tokens


@pytest.mark.parametrize("tokens", [2, 3, 17, 128])
def test_a_vocabulary_without_words_gives_a_text_of_so_many_letters(words: Words, tokens: int) -> None:
    spelled = Words(models.path("pocket", "q4_k_m"))
    spelled.single_tokens = []
    spelled._count = len  # as in a vocabulary of bytes

    text = spelled.text(tokens, random.Random(1))

    assert len(text) == tokens
    assert "  " not in text, "the synthetic models have a token for two spaces"


def test_prompts_of_each_load_are_as_it_says_and_within_its_context(words: Words) -> None:
    lengths = {
        name: {
            (count(words, prompt.prompt), prompt.max_tokens) for prompt in load.prompts(words, "x", most=16)
        }
        for name, load in LOADS.items()
    }

    mixed = lengths.pop("mixed")
    assert lengths == {"plain": {(128, 64)}, "shared": {(932, 32)}}
    long = {(tokens, answer) for tokens, answer in mixed if tokens >= 1000}
    assert len(long) == 2
    assert all(tokens <= 1500 and answer == 16 for tokens, answer in long)
    assert all(32 <= tokens <= 96 and 48 <= answer <= 144 for tokens, answer in mixed - long)
    assert len(mixed) == 16, "lengths are drawn"
    lengths["mixed"] = mixed
    assert all(
        tokens + answer <= LOADS[name].context_tokens
        for name, found in lengths.items()
        for tokens, answer in found
    )


def test_runs_share_nothing_and_the_same_run_is_the_same(words: Words) -> None:
    for load in LOADS.values():
        first, again, other = (load.prompts(words, seed, most=4) for seed in ("1", "1", "2"))
        assert first == again
        assert {prompt.prompt[:40] for prompt in first}.isdisjoint({prompt.prompt[:40] for prompt in other})


def test_a_shared_prefix_is_shared_within_a_run_and_nothing_else_is(words: Words) -> None:
    shared = [prompt.prompt for prompt in LOADS["shared"].prompts(words, "1", most=8)]
    plain = [prompt.prompt for prompt in LOADS["plain"].prompts(words, "1", most=8)]

    prefix = words.tokenizer.encode(shared[0], add_special=True, parse_special=True)[:900]
    for text in shared:
        assert words.tokenizer.encode(text, add_special=True, parse_special=True)[:900] == prefix
    assert len(set(shared)) == 8
    assert len({text[:20] for text in plain}) == 8


def test_end_tokens_are_the_models_own(words: Words) -> None:
    ends = words.end_tokens()

    assert ends
    assert all(words.tokenizer.is_control(token) for token in ends)
