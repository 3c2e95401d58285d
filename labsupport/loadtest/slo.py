"""Service-level objectives, and goodput: requests a second that met every one of them.

Throughput rewards a server that answers everybody late; goodput counts only those who were served as
promised. Source: Zhong et al., "DistServe: Disaggregating Prefill and Decoding for Goodput-optimized Large
Language Model Serving" (OSDI 2024); vLLM's `vllm bench serve --goodput` takes the same three limits.
"""

from __future__ import annotations

from dataclasses import dataclass

from labsupport.errors import LabsupportError
from labsupport.loadtest.record import Record

NAMES = ("ttft", "tpot", "e2e")


@dataclass(frozen=True, kw_only=True)
class SLO:
    """The longest that each may take, in seconds; None where nothing is promised."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    @classmethod
    def parse(cls, words: list[str]) -> SLO:
        """`["ttft=0.5", "tpot=0.05"]`, in seconds. Raises LabsupportError."""
        limits = {}
        for word in words:
            name, _, text = word.partition("=")
            try:
                limits[name] = float(text)
            except ValueError:
                limits[name] = -1.0
            if name not in NAMES or not limits[name] > 0:
                raise LabsupportError(
                    f"{word!r} is no objective", allowed="ttft=SECONDS, tpot=SECONDS and e2e=SECONDS"
                )
        return cls(**limits)

    def is_met_by(self, record: Record) -> bool:
        """Whether a request was answered in time. One token has no time per token after the first."""
        return record.is_ok and all(
            limit is None or (value is not None and value <= limit) or (name == "tpot" and value is None)
            for name, limit, value in (
                ("ttft", self.ttft, record.ttft_seconds),
                ("tpot", self.tpot, record.tpot_seconds),
                ("e2e", self.e2e, record.e2e_seconds),
            )
        )

    def __str__(self) -> str:
        limits = [(name, getattr(self, name)) for name in NAMES]
        return ", ".join(f"{name.upper()} ≤ {limit:g} s" for name, limit in limits if limit is not None)
