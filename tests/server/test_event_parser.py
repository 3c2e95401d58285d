"""Server-sent events are found wherever the network cut them."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labsupport.server.upstream.event_parser import EventParser, EventTooLarge

STREAM = 'data: {"a":"é☃"}\n\n: keep-alive\n\nevent: x\ndata:two\ndata: lines\n\nid: 7\n\ndata: [DONE]\n\n'
EVENTS = ['{"a":"é☃"}'.encode(), b"two\nlines", b"[DONE]"]


def parsed(pieces: list[bytes]) -> list[bytes]:
    parser = EventParser(limit_bytes=1000)
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@settings(deadline=None)
@given(st.lists(st.integers(0, len(STREAM.encode()) + 20), max_size=12))
def test_any_cut_and_any_line_end_gives_the_same_events(end, cuts):
    stream = STREAM.replace("\n", end).encode()
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})

    assert parsed([stream[a:b] for a, b in itertools.pairwise(edges)]) == EVENTS
    assert parsed([stream[place : place + 1] for place in range(len(stream))]) == EVENTS


def test_an_event_comes_with_the_byte_that_completes_it():
    parser = EventParser(limit_bytes=1000)

    assert parser.feed(b"data: 1\n") == []
    assert parser.feed(b"\n") == [b"1"]
    assert parser.feed(b"data: 2\r\n\r") == [b"2"]
    assert parser.feed(b"\ndata: 3\r\n\r\n") == [b"3"]


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 50, b"data: xxxxxxxxx\n"])
def test_an_event_without_an_end_is_given_up(piece):
    parser = EventParser(limit_bytes=10 * len(piece))
    for _ in range(10):
        assert parser.feed(piece) == []

    with pytest.raises(EventTooLarge):
        parser.feed(piece)


def test_comments_without_end_fill_nothing():
    parser = EventParser(limit_bytes=100)

    for _ in range(200):
        assert parser.feed(b": keep-") == parser.feed(b"alive\n") == []

    assert parser.feed(b"data: 1\n\n") == [b"1"]


@pytest.mark.parametrize("piece", [b"x" * 64, b"data:\n" * 10])
def test_long_events_cost_no_more_a_byte_than_short_ones(piece):
    def seconds(pieces: int) -> float:
        parser = EventParser(limit_bytes=2**30)
        begin = time.process_time()
        for _ in range(pieces):
            parser.feed(piece)
        return time.process_time() - begin

    # 40 times the bytes: 40 times the time if it is linear, 1,600 times if all is looked at again each time
    assert seconds(20_000) < 400 * min(seconds(500) for _ in range(5))
