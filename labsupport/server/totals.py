"""What the ledger's rows add up to, by key and in a period.

Right means: sums of whole numbers, made by SQLite over one state of the file, so that they are those of the
rows whatever the server writes meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from labsupport.errors import LabsupportError
from labsupport.server.ledger_file import open_for_reading

_SUMS = """
    count(*) FILTER (WHERE finish_reason <> 'error'),
    count(*) FILTER (WHERE finish_reason = 'error'),
    count(*) FILTER (WHERE finish_reason IS NULL),
    count(*) FILTER (WHERE finish_reason <> 'error' AND prompt_tokens IS NULL),
    coalesce(sum(prompt_tokens) FILTER (WHERE finish_reason <> 'error'), 0),
    coalesce(sum(cached_tokens) FILTER (WHERE finish_reason <> 'error'), 0),
    coalesce(sum(completion_tokens) FILTER (WHERE finish_reason <> 'error'), 0),
    coalesce(sum(prompt_tokens + completion_tokens) FILTER (WHERE finish_reason = 'error'), 0)
"""
_PERIOD = "arrived_at >= ? AND arrived_at < ?"


class PeriodError(LabsupportError):
    """A time that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Period:
    """Requests that arrived from `since` to before `until`, in seconds since 1970; without bounds, all."""

    since: float = float("-inf")
    until: float = float("inf")

    @classmethod
    def parse(cls, since: str | None, until: str | None) -> Self:
        """From two ISO 8601 dates or times, in UTC where they do not say otherwise. Raises PeriodError."""
        bounds = {name: _moment(text) for name, text in (("since", since), ("until", until)) if text}
        return cls(**bounds)

    def as_json(self) -> dict[str, str | None]:
        """Both bounds in ISO 8601 and UTC; None where there is none."""
        return {
            name: None if abs(bound) == float("inf") else datetime.fromtimestamp(bound, UTC).isoformat()
            for name, bound in (("since", self.since), ("until", self.until))
        }


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What one key used.

    requests: that ended by themselves or because the client left; their tokens are the sums.
    failed: that ended in an error, for which nobody is charged.
    unfinished: that run, or ran when the server was killed: what they used is not known.
    without_usage: of `requests`, those whose upstream never said what they used; the sums lack them.
    cached_tokens: of the prompt tokens, those that a shared prefix saved from being computed.
    failed_tokens: that `failed` ones are known to have used. Somebody paid for them, and not the key's owner.
    """

    key: str
    requests: int = 0
    failed: int = 0
    unfinished: int = 0
    without_usage: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    failed_tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        """Without the key; the tokens as in an answer's `usage`."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "failed_tokens": self.failed_tokens,
            "unfinished": self.unfinished,
            "without_usage": self.without_usage,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


def of_key(path: Path, key: str, period: Period) -> Totals:
    """The totals of one key, zeros if it has no rows. Raises ledger_file.LedgerError."""
    with open_for_reading(path) as connection:
        row = connection.execute(
            f"SELECT {_SUMS} FROM requests WHERE key = ? AND {_PERIOD}", (key, period.since, period.until)
        ).fetchone()
    return _totals(key, row)


def of_all_keys(path: Path, period: Period, *, model: str | None = None) -> tuple[list[Totals], list[str]]:
    """The totals of every key that has rows, by name, and the models that they are of.

    model: counts the rows of this model alone. Raises ledger_file.LedgerError.
    """
    where = f"WHERE {_PERIOD} AND (model = ? OR ? IS NULL)"
    values = (period.since, period.until, model, model)
    with open_for_reading(path) as connection:
        connection.execute("BEGIN")  # both questions about the same state
        rows = connection.execute(
            f"SELECT key, {_SUMS} FROM requests {where} GROUP BY key ORDER BY key", values
        ).fetchall()
        models = connection.execute(f"SELECT DISTINCT model FROM requests {where} ORDER BY model", values)
        return [_totals(key, sums) for key, *sums in rows], [name for (name,) in models]


def _totals(key: str, sums: Sequence[int]) -> Totals:
    requests, failed, unfinished, without_usage, prompt, cached, completion, failed_tokens = sums
    return Totals(
        key=key,
        requests=requests,
        failed=failed,
        unfinished=unfinished,
        without_usage=without_usage,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        failed_tokens=failed_tokens,
    )


def _moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
        if not 1 < moment.year < 9999:  # at either end another time zone's year is none that Python has
            raise ValueError
    except ValueError:
        raise PeriodError(
            f"{text!r} is no date or time", allowed="ISO 8601, like 2026-11-01 or 2026-11-01T09:30:00Z"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
