"""What a request is charged with before the upstream has said what it used."""

from __future__ import annotations

import pytest

from labsupport.server.upstream.estimate import prompt_tokens


def message(content: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}]}


def test_four_bytes_of_text_are_a_token_and_the_words_around_it_count():
    around = prompt_tokens(message(""))

    assert around == -(-len("roleusercontent") // 4)
    assert prompt_tokens(message("x" * 400)) == pytest.approx(around + 100, abs=1)
    assert prompt_tokens(message("語" * 400)) == pytest.approx(around + 300, abs=1)  # three bytes each
    assert prompt_tokens(message("\ud800" * 4)) == pytest.approx(around + 3, abs=1)


def test_the_id_of_a_token_is_a_token():
    assert prompt_tokens({"prompt": [[1, 2, 100_000], [4]]}) == 4
    assert prompt_tokens({"prompt": ["abcd", "abcdefgh"]}) == 3


def test_tools_and_schemas_are_read_by_the_model_too():
    schema = {"type": "function", "function": {"name": "x" * 4000}}

    assert prompt_tokens({"tools": [schema]}) > 1000
    assert prompt_tokens({"response_format": {"json_schema": schema}}) > 1000
    assert prompt_tokens({"user": "x" * 4000, "metadata": {"a": "x" * 4000}}) == 0


def test_the_bytes_of_a_picture_are_no_tokens():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}}

    assert prompt_tokens(message([picture, {"type": "text", "text": "What is it?"}])) < 30


def test_nesting_is_no_danger():
    deep: object = "x" * 40
    for _ in range(100_000):
        deep = [deep]

    assert prompt_tokens({"tools": deep}) == 10
    assert prompt_tokens({"tools": None, "prompt": None, "messages": None}) == 0
