"""From bytes to text: whole characters only, and never the beginning of a stop string."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from labsupport.engine.detokenizer import Detokenizer


def shown(pieces: list[bytes], *stop: str) -> list[str]:
    detokenizer = Detokenizer(stop)
    return [*(detokenizer.push(piece) for piece in pieces), detokenizer.finish()]


def test_an_emoji_split_over_tokens_is_shown_whole():
    assert shown([bytes([byte]) for byte in "a🙂b".encode()]) == ["a", "", "", "", "🙂", "b", ""]


def test_bytes_that_never_become_a_character_are_marked_at_the_end():
    assert shown([b"a\xf0\x9f"]) == ["a", "\ufffd"]


def test_a_stop_string_across_tokens_is_found_and_not_shown():
    assert shown([b"one E", b"N", b"D two"], "END") == ["one ", "", "", ""]


def test_what_only_looked_like_a_stop_string_is_shown_as_soon_as_that_is_sure():
    assert shown([b"one E", b"N", b"D"], "ENDING") == ["one ", "", "", "END"]
    assert shown([b"aab", b"aac"], "aabaab") == ["", "aabaac", ""]


def test_the_earliest_stop_string_counts():
    assert shown([b"a b c"], "c", "b") == ["a ", ""]


def test_nothing_is_shown_after_a_stop_string():
    detokenizer = Detokenizer(("x",))
    assert (detokenizer.push(b"1x2"), detokenizer.stopped) == ("1", True)
    assert (detokenizer.push(b"3"), detokenizer.finish()) == ("", "")


@given(
    text=st.text(alphabet="ab🙂é", max_size=30),
    cuts=st.lists(st.integers(0, 120), max_size=12),
    stop=st.lists(st.text(alphabet="ab🙂", min_size=1, max_size=4), max_size=3),
)
def test_pieces_put_together_are_the_text_cut_before_the_first_stop_string(text, cuts, stop):
    raw = text.encode()
    places = sorted({0, len(raw), *(min(cut, len(raw)) for cut in cuts)})
    pieces = [raw[start:end] for start, end in pairwise(places)]
    whole = "".join(shown(pieces, *stop))
    ends = [text.find(each) + len(each) for each in stop if each in text]
    if not ends:
        assert whole == text
    else:
        assert not any(each in whole for each in stop)
        assert text.startswith(whole)
        assert len(whole) < max(ends)


@given(text=st.text(alphabet="ab", max_size=20), stop=st.text(alphabet="ab", min_size=1, max_size=4))
def test_never_more_is_held_back_than_could_be_a_stop_string(text, stop):
    detokenizer = Detokenizer((stop,))
    so_far = "".join(detokenizer.push(letter.encode()) for letter in text)
    if not detokenizer.stopped:
        held = text[len(so_far) :]
        assert stop.startswith(held)
        assert len(held) < len(stop)
