"""What a run amounts to: rates and latencies of its steady part, failures of all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from labsupport.errors import LabsupportError
from labsupport.loadtest.arrivals import Arrivals
from labsupport.loadtest.record import Record
from labsupport.loadtest.slo import SLO
from labsupport.loadtest.statistics import Distribution
from labsupport.loadtest.steady import Window, steady_window, tokens_within


@dataclass(frozen=True)
class Report:
    """The records of a run and the figures made of them. `print(report)` is a table."""

    records: tuple[Record, ...]
    arrivals: Arrivals
    slo: SLO | None = None

    def __post_init__(self) -> None:
        if not self.records:
            raise LabsupportError("no request was sent", remedy="give at least one prompt, and time")

    @cached_property
    def window(self) -> Window:
        """The part of the run without its ramps."""
        return steady_window(self.records, self.arrivals)

    @cached_property
    def answered(self) -> tuple[Record, ...]:
        """The requests that were answered to the end."""
        return tuple(record for record in self.records if record.is_ok)

    @cached_property
    def counted(self) -> tuple[Record, ...]:
        """The answered requests whose latencies count: those that arrived in the steady part."""
        begin, end, is_steady = self.window
        return tuple(record for record in self.answered if not is_steady or begin <= record.arrived <= end)

    @cached_property
    def errors(self) -> Counter[str]:
        """How often each thing went wrong, over the whole run."""
        return Counter(record.error for record in self.records if record.error)

    @property
    def output_tokens_per_second(self) -> float:
        return tokens_within(self.records, self.window) / self.window.seconds

    @property
    def requests_per_second(self) -> float:
        """Answers that ended in the steady part, for each of its seconds."""
        return sum(self._ended_within(record) for record in self.answered) / self.window.seconds

    @property
    def whole_run_tokens_per_second(self) -> float:
        """All output tokens over the time from the first arrival to the last byte, ramps included."""
        seconds = max(one.ended for one in self.records) - min(one.arrived for one in self.records)
        return sum(record.output_tokens for record in self.records) / seconds

    @cached_property
    def ttft(self) -> Distribution:
        """Time to first token, in seconds."""
        return Distribution.of(record.ttft_seconds for record in self.counted)

    @cached_property
    def itl(self) -> Distribution:
        """Inter-token latency, in seconds, over all gaps of all requests."""
        return Distribution.of(gap for record in self.counted for gap in record.itl_seconds)

    @cached_property
    def tpot(self) -> Distribution:
        """Time per output token after the first, in seconds, one value a request."""
        return Distribution.of(record.tpot_seconds for record in self.counted)

    @cached_property
    def e2e(self) -> Distribution:
        """End-to-end latency, in seconds."""
        return Distribution.of(record.e2e_seconds for record in self.counted)

    def goodput(self, slo: SLO) -> float:
        """Requests a second that met every objective, over the steady part."""
        good = sum(slo.is_met_by(record) and self._ended_within(record) for record in self.records)
        return good / self.window.seconds

    @property
    def caveats(self) -> list[str]:
        """What a reader of the figures should know about them."""
        found = []
        if not self.window.is_steady:
            found.append("too short to cut the ramps off: rates and latencies are of the whole run")
        if guessed := sum(record.counted_by != "usage" for record in self.answered):
            found.append(f"{guessed} answers came without the server's count of tokens")
        if uneven := sum(not record.has_a_chunk_per_token for record in self.answered):
            found.append(f"{uneven} answers did not come one token a chunk: their ITL is that of chunks")
        return found

    def as_json(self, *, with_records: bool = False) -> dict[str, Any]:
        """Everything in plain types, times in seconds; `with_records` the requests one by one too."""
        whole = {
            "load": str(self.arrivals),
            "requests": len(self.records),
            "answered": len(self.answered),
            "errors": dict(self.errors),
            "window": self.window._asdict(),
            "output_tokens": sum(record.output_tokens for record in self.records),
            "prompt_tokens": sum(record.prompt_tokens for record in self.records),
            "cached_tokens": sum(record.cached_tokens for record in self.records),
            "output_tokens_per_second": self.output_tokens_per_second,
            "whole_run_tokens_per_second": self.whole_run_tokens_per_second,
            "requests_per_second": self.requests_per_second,
            "latency_seconds": {
                name: msgspec.to_builtins(getattr(self, name)) for name in ("ttft", "itl", "tpot", "e2e")
            },
            "caveats": self.caveats,
        }
        if self.slo:
            whole["goodput_per_second"] = self.goodput(self.slo)
            whole["slo"] = str(self.slo)
        if with_records:
            whole["records"] = msgspec.to_builtins(self.records)
        return whole

    def __str__(self) -> str:
        window = self.window
        lines = [
            f"{self.arrivals}: {len(self.records)} requests, {len(self.answered)} answered",
            f"{window.seconds:.1f} s {'without' if window.is_steady else 'with'} the ramps",
            f"output tokens/s {self.output_tokens_per_second:10.1f}",
            f"requests/s      {self.requests_per_second:10.2f}",
        ]
        if self.slo:
            lines.append(f"goodput/s       {self.goodput(self.slo):10.2f}   ({self.slo})")
        lines.append(f"{'':16}{'median':>10}{'p95':>10}{'p99':>10}")
        for label, name, scale in _ROWS:
            values: Distribution = getattr(self, name)
            figures = (values.median, values.p95, values.p99)
            lines.append(f"{label:16}" + "".join(f"{value * scale:10.3f}" for value in figures))
        lines += [f"failed {count} ×: {error}" for error, count in self.errors.most_common()]
        lines += [f"note: {caveat}" for caveat in self.caveats]
        return "\n".join(lines)

    def _ended_within(self, record: Record) -> bool:
        # A run that was not steady counts whole, its first instant included.
        return not self.window.is_steady or self.window.holds(record.ended)


_ROWS: Sequence[tuple[str, str, float]] = (
    ("TTFT, s", "ttft", 1),
    ("ITL, ms", "itl", 1000),
    ("TPOT, ms", "tpot", 1000),
    ("E2E, s", "e2e", 1),
)
