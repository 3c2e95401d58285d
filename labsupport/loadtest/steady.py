"""The part of a run in which the load was what it claims to be.

At the start of a closed loop all clients ask at once, and at its end ever fewer do; tokens a second over the
whole run would mix in both ramps, the more so the shorter the run. So they are cut off: a run counts from the
moment by which as many requests have ended as there are clients, to the moment at which the last one was
sent. In an open loop, whose level builds up slowly, the first tenth of the arrivals is cut off.
llama.cpp's k6 script and vLLM's benchmark divide by the whole run and rely on its length instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from labsupport.loadtest.arrivals import Arrivals, Closed
from labsupport.loadtest.record import Record

RAMP_SHARE = 0.1
SMALLEST_SHARE = 0.2
"""A steady part that is a smaller share of the time in which requests were sent is no basis for a rate."""
SHORTEST_SECONDS = 1e-3


class Window(NamedTuple):
    """From `begin` to `end`, in seconds since the run began; the whole run if that was too short."""

    begin: float
    end: float
    is_steady: bool

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    def holds(self, time: float) -> bool:
        return self.begin < time <= self.end


def steady_window(records: Sequence[Record], arrivals: Arrivals) -> Window:
    """The steady part of a run with at least one record."""
    first, last = min(record.arrived for record in records), max(record.ended for record in records)
    last_arrival = max(record.arrived for record in records)
    if isinstance(arrivals, Closed):
        ends = sorted(record.ended for record in records)
        begin = ends[min(arrivals.clients, len(ends)) - 1]
    else:
        begin = first + RAMP_SHARE * (last_arrival - first)
    if last_arrival - begin < max(SMALLEST_SHARE * (last_arrival - first), SHORTEST_SECONDS):
        return Window(first, last, is_steady=False)
    return Window(begin, last_arrival, is_steady=True)


def tokens_within(records: Sequence[Record], window: Window) -> float:
    """Output tokens that came within the window.

    The server's count of a request's tokens is spread over the request's chunks evenly, so that a chunk of
    several tokens counts as what it is. Requests that failed in mid-answer count with what they got.
    """
    total = 0.0
    for record in records:
        times = record.text_times or ((record.finished,) if record.finished is not None else ())
        if times:
            total += record.output_tokens / len(times) * sum(window.holds(time) for time in times)
    return total
