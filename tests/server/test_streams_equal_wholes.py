"""A stream's text is that of the whole answer, byte for byte, wherever characters and stop strings are cut.

The model recites: it is sure of each next byte, every byte is a token of its own, and so an emoji always
comes in four pieces and any stop string across tokens.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

import labsupport
from labsupport.server.launch import Server

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from tiny_gguf import RECITED, write_reciting

STOPS = [
    (["🙂"], "ab "),
    (["cd!"], "ab 🙂"),
    (["d!\na"], "ab 🙂c"),
    (["never", "!\n"], "ab 🙂cd"),
    (["🙂c", "b"], "a"),
    (["\nab 🙂cd!\nX"], None),
    (["x"], None),
]


@pytest.fixture(scope="module")
def reciting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = write_reciting(tmp_path_factory.mktemp("reciting") / "tiny.gguf", RECITED)
    with labsupport.serve(str(file), slots=4, context=256) as running:
        yield running


@pytest.fixture(scope="module")
def recited(reciting) -> openai.OpenAI:
    return reciting.openai()


def ask(client: openai.OpenAI, **options):
    """After the last byte of what is recited it begins again."""
    prompt = options.pop("prompt", "\n")
    options = {"temperature": 0, "logprobs": 1, **options}
    return client.completions.create(model="tiny", prompt=prompt, extra_body={"ignore_eos": True}, **options)


def joined(chunks: list) -> str:
    return "".join(chunk.choices[0].text for chunk in chunks)


@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 6, 7, 11, 40])
def test_an_emoji_in_four_tokens_is_the_same_streamed_and_whole_wherever_the_answer_ends(recited, tokens):
    whole = ask(recited, max_tokens=tokens).choices[0]
    chunks = list(ask(recited, max_tokens=tokens, stream=True))

    said = (RECITED * 8).encode()[:tokens].decode("utf-8", "replace")
    assert joined(chunks) == whole.text == said
    # and nobody was ever shown half a character before the end
    for chunk in chunks[:-1]:
        assert "\ufffd" not in chunk.choices[0].text


@pytest.mark.parametrize(("stop", "text"), STOPS)
def test_a_stop_string_cuts_a_stream_where_it_cuts_the_whole_answer(recited, stop, text):
    whole = ask(recited, max_tokens=30, stop=stop).choices[0]
    chunks = list(ask(recited, max_tokens=30, stop=stop, stream=True))

    said = (RECITED * 4).encode()[:30].decode("utf-8", "replace") if text is None else text
    assert joined(chunks) == whole.text == said
    assert (
        chunks[-1].choices[0].finish_reason == whole.finish_reason == ("length" if text is None else "stop")
    )
    for shorter, longer in itertools.pairwise(itertools.accumulate(c.choices[0].text for c in chunks)):
        assert longer.startswith(shorter)
        assert said.startswith(longer)  # what was shown is never taken back


@pytest.mark.parametrize("stop", [None, ["cd!"], ["🙂"]])
def test_logprobs_are_the_same_streamed_and_whole_and_one_to_a_token(recited, stop):
    whole = ask(recited, max_tokens=20, stop=stop)
    chunks = list(ask(recited, max_tokens=20, stop=stop, stream=True, stream_options={"include_usage": True}))
    *chunks, last = chunks

    wholly = whole.choices[0].logprobs
    parts = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert [token for part in parts for token in part.tokens] == wholly.tokens
    assert [place for part in parts for place in part.text_offset] == wholly.text_offset
    assert [value for part in parts for value in part.token_logprobs] == pytest.approx(
        wholly.token_logprobs, abs=1e-3
    )
    assert len(wholly.tokens) == whole.usage.completion_tokens == last.usage.completion_tokens
