"""What is made of records: the definitions, the steady part, percentiles, goodput. No network."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labsupport.errors import LabsupportError
from labsupport.loadtest import SLO, Closed, Distribution, Poisson, Record, Report
from labsupport.loadtest.statistics import percentile
from labsupport.loadtest.steady import steady_window, tokens_within


def record(arrived: float, first: float, *, tokens: int = 4, gap: float = 0.1, **changes: object) -> Record:
    """Arrives, has its first token so many seconds later, then one every `gap`."""
    times = tuple(arrived + first + gap * number for number in range(tokens))
    fields = {
        "arrived": arrived,
        "sent": arrived,
        "text_times": times,
        "finished": times[-1],
        "ended": times[-1],
        "output_tokens": tokens,
        "finish_reason": "length",
    }
    return Record(**(fields | changes))


def closed_run(clients: int, rounds: int, *, seconds_each: float = 1.0) -> list[Record]:
    """Every client asks `rounds` times, one after another; four tokens in each answer."""
    return [
        record(number * seconds_each, 0.7 * seconds_each, gap=0.1 * seconds_each)
        for number in range(rounds)
        for _ in range(clients)
    ]


def test_latencies_are_as_defined():
    one = record(10.0, 0.5, tokens=5, gap=0.2)

    assert one.ttft_seconds == pytest.approx(0.5)
    assert one.itl_seconds == pytest.approx([0.2] * 4)
    assert one.e2e_seconds == pytest.approx(1.3)
    assert one.tpot_seconds == pytest.approx(0.2)


def test_the_wait_for_a_busy_load_generator_counts_as_the_callers_wait():
    late = record(10.0, 0.5, sent=10.4)

    assert late.ttft_seconds == pytest.approx(0.5)


def test_one_token_has_no_time_per_token_and_no_answer_no_latency_at_all():
    single = record(0.0, 0.5, tokens=1)
    failed = Record(arrived=0.0, sent=0.0, ended=3.0, error="HTTP 429")

    assert single.tpot_seconds is None
    assert single.itl_seconds == ()
    assert (failed.ttft_seconds, failed.e2e_seconds, failed.tpot_seconds) == (None, None, None)


def test_the_finish_ends_the_answer_even_if_its_chunk_has_no_text():
    one = record(0.0, 0.5, tokens=3, gap=0.1, finished=0.9, output_tokens=4)

    assert one.e2e_seconds == pytest.approx(0.9)
    assert one.tpot_seconds == pytest.approx(0.4 / 3)
    assert one.has_a_chunk_per_token


@settings(deadline=None)  # a starved machine is no slow function
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0, 100))
def test_percentiles_are_numpys(values, percent):
    assert percentile(sorted(values), percent) == pytest.approx(
        float(np.percentile(values, percent)), abs=1e-6
    )


@settings(deadline=None)  # a starved machine is no slow function
@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=60))
def test_a_distribution_is_in_order_within_its_values(values):
    found = Distribution.of([*values, None])

    assert found.count == len(values)
    assert min(values) <= found.median <= found.p95 <= found.p99 <= found.most == max(values)


def test_a_distribution_of_nothing_is_nan_and_not_zero():
    assert math.isnan(Distribution.of([None]).p95)


def test_the_ramps_are_cut_off():
    records = closed_run(clients=4, rounds=5)

    window = steady_window(records, Closed(4))

    assert window.is_steady
    assert (window.begin, window.end) == pytest.approx((1.0, 4.0))
    assert tokens_within(records, window) / window.seconds == pytest.approx(16.0)


def test_without_the_cut_the_tail_of_a_slow_last_answer_would_lower_the_rate():
    records = [*closed_run(clients=4, rounds=5), record(4.0, 20.0)]

    report = Report(tuple(records), Closed(4))

    assert report.output_tokens_per_second == pytest.approx(16.0)
    assert report.whole_run_tokens_per_second < 5


def test_a_run_that_was_too_short_counts_whole_and_says_so():
    report = Report(tuple(closed_run(clients=4, rounds=1)), Closed(4))

    assert not report.window.is_steady
    assert report.output_tokens_per_second == pytest.approx(16.0)
    assert report.requests_per_second == pytest.approx(4.0)
    assert "too short" in report.caveats[0]


def test_a_tenth_of_an_open_loop_is_cut_off():
    records = [record(float(second), 0.2) for second in range(11)]

    window = steady_window(records, Poisson(1.0))

    assert (window.begin, window.end) == pytest.approx((1.0, 10.0))


def test_latencies_are_of_what_arrived_in_the_steady_part_alone():
    records = [record(0.0, 9.0), *closed_run(clients=2, rounds=6)[2:]]

    report = Report(tuple(records), Closed(2))

    assert report.ttft.most < 1


@settings(deadline=None)  # a starved machine is no slow function
@given(st.integers(1, 6), st.integers(1, 8), st.floats(0.05, 50))
def test_tokens_are_never_counted_twice_or_invented(clients, rounds, seconds_each):
    records = closed_run(clients, rounds, seconds_each=seconds_each)

    counted = tokens_within(records, steady_window(records, Closed(clients)))

    assert 0 <= counted <= sum(one.output_tokens for one in records) + 1e-9


def test_several_tokens_in_a_chunk_count_as_several():
    records = [record(float(second), 0.5, tokens=1, output_tokens=8) for second in range(10)]

    report = Report(tuple(records), Closed(1))

    assert report.output_tokens_per_second == pytest.approx(8.0, rel=0.2)
    assert any("ITL is that of chunks" in caveat for caveat in report.caveats)


def test_goodput_counts_only_who_was_served_as_promised():
    quick, slow = closed_run(clients=2, rounds=8), record(3.0, 2.0)
    report = Report((*quick, slow, Record(arrived=3.0, sent=3.0, ended=3.1, error="HTTP 429")), Closed(2))

    assert report.goodput(SLO(ttft=1.0)) == pytest.approx(2.0, rel=0.2)
    assert report.goodput(SLO(ttft=0.1)) == 0
    assert report.goodput(SLO(ttft=1.0, tpot=0.01)) == 0
    assert report.goodput(SLO(e2e=10.0)) > report.goodput(SLO(e2e=1.5)) > 0


def test_objectives_are_read_or_refused_with_what_is_allowed():
    assert SLO.parse(["ttft=0.5", "e2e=2"]) == SLO(ttft=0.5, e2e=2.0)
    for wrong in ("ttft", "ttft=soon", "speed=3", "tpot=0", "tpot=-1", "e2e=nan"):
        with pytest.raises(LabsupportError) as refusal:
            SLO.parse([wrong])
        assert "ttft=SECONDS" in refusal.value.allowed


def test_the_report_prints_and_serializes_what_it_says():
    errors = Record(arrived=1.0, sent=1.0, ended=1.2, error="HTTP 429: full")
    report = Report((*closed_run(2, 6), errors), Closed(2), SLO(ttft=1.0))

    printed, plain = str(report), report.as_json(with_records=True)

    assert "closed loop, 2 clients: 13 requests, 12 answered" in printed
    assert "failed 1 ×: HTTP 429: full" in printed
    assert plain["errors"] == {"HTTP 429: full": 1}
    assert plain["latency_seconds"]["ttft"]["p95"] == report.ttft.p95
    assert len(plain["records"]) == 13
    assert plain["slo"] == "TTFT ≤ 1 s"


def test_no_request_at_all_is_an_error_and_not_a_division_by_zero():
    with pytest.raises(LabsupportError, match="no request was sent"):
        Report((), Closed(1))
