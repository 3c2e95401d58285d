"""What Prometheus sees of the ledger: whether rows are written, and how far behind they are.

Right means: a disk that refuses or hangs shows here before anybody misses a row. Worth an alarm:
`ledger_unavailable` at 1, when requests are being refused; `ledger_lag_seconds` above a second, when answers
already wait for the disk; any growth of `ledger_write_failures_total`.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from labsupport.server.ledger import Ledger
from labsupport.server.metrics import PREFIX


class LedgerCollector(Collector):
    """Reads the ledger's state at each scrape. A server without a ledger has none of these."""

    def __init__(self, model: str, ledger: Ledger) -> None:
        self._model = model
        self._ledger = ledger

    def describe(self) -> Iterator[Metric]:
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        for name, text, value in (
            (
                "ledger_unavailable",
                "1 while rows cannot be written, and new requests are answered 503.",
                float(bool(self._ledger.trouble)),
            ),
            (
                "ledger_lag_seconds",
                "How long the oldest row that is not on the disk yet has waited.",
                self._ledger.lag_seconds,
            ),
        ):
            gauge = GaugeMetricFamily(f"{PREFIX}{name}", text, labels=["model_name"])
            gauge.add_metric([self._model], value)
            yield gauge
        failures = CounterMetricFamily(
            f"{PREFIX}ledger_write_failures",
            "Commits that the disk refused; the same rows are tried again every second.",
            labels=["model_name"],
        )
        failures.add_metric([self._model], self._ledger.failures)
        yield failures
