"""What a request is charged with before the upstream has said what it used."""

from __future__ import annotations

import json

import pytest

from labsupport.server.upstream.estimate import prompt_tokens


def estimate(asked: dict[str, object]) -> int:
    return prompt_tokens(asked, sent_bytes=len(json.dumps(asked, ensure_ascii=False).encode()))


def message(content: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}]}


def test_four_bytes_of_text_are_a_token_and_the_words_around_it_count():
    around = estimate(message(""))

    assert around == -(-len(json.dumps(message(""))) // 4)
    assert estimate(message("x" * 400)) == pytest.approx(around + 100, abs=1)
    assert estimate(message("語" * 400)) == pytest.approx(around + 300, abs=1)  # three bytes each


def test_the_id_of_a_token_is_a_token():
    assert estimate({"prompt": [1, 2, 100_000]}) == 3
    assert estimate({"prompt": [[1, 2, 100_000], [4]]}) == 4
    assert estimate({"prompt": ["abcd" * 100, "abcdefgh" * 100]}) == pytest.approx(300, abs=10)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}},
        {"type": "image_url", "image_url": "data:image/png;base64," + "A" * 10**6},
        {"type": "input_audio", "input_audio": {"data": "A" * 10**6, "format": "wav"}},
        {"type": "file", "file": {"filename": "x.pdf", "file_data": "A" * 10**6}},
    ],
)
def test_the_bytes_of_a_picture_or_a_sound_are_no_tokens(part):
    assert estimate(message([part, {"type": "text", "text": "What is it?"}])) < 60


@pytest.mark.parametrize(
    "part", [{}, {"type": "file"}, {"type": "image_url", "image_url": None}, {"type": []}, {"type": {}}]
)
def test_a_part_that_is_not_whole_is_no_mistake_of_ours(part):
    assert 0 < estimate(message([part])) < 60


class NotLookedInto(dict):
    """Says whether anybody has looked at what is in it."""

    was_looked_into = False

    def __iter__(self):
        self.was_looked_into = True
        return super().__iter__()

    keys = values = items = get = __getitem__ = __iter__


def test_however_much_is_in_a_tool_it_is_not_walked_through():
    tools = NotLookedInto({"type": "function"})

    assert prompt_tokens({"tools": [tools], **message("x")}, sent_bytes=4_000_000) == 1_000_000
    assert not tools.was_looked_into
