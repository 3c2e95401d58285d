"""A bill from totals and prices, exact to the last digit.

cost = (prompt − cached) × price of a prompt token + cached × price of a cached one + completion × price of a
completion token, with prices per million tokens, in whatever currency they are given. Decimal numbers: binary
fractions cannot say 0.1, and a bill is added up by people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Self

from labsupport.errors import LabsupportError
from labsupport.server.totals import Totals

MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Per million tokens."""

    prompt: Decimal
    cached: Decimal
    completion: Decimal

    @classmethod
    def parse(cls, prompt: str, completion: str, cached: str | None = None) -> Self:
        """From decimal numbers; without a price of its own a cached token costs what a prompt token does.

        Raises LabsupportError.
        """
        return cls(
            prompt=_price(prompt),
            completion=_price(completion),
            cached=_price(prompt if cached is None else cached),
        )

    def cost(self, totals: Totals) -> Decimal:
        """What these totals cost."""
        computed = totals.prompt_tokens - totals.cached_tokens
        return (
            computed * self.prompt
            + totals.cached_tokens * self.cached
            + totals.completion_tokens * self.completion
        ) / MILLION


def table(lines: Sequence[Totals], prices: Prices | None) -> str:
    """The bill as text: a line for each key, and their sum; without prices, the use alone."""
    head = [
        "key",
        "requests",
        "tokens in",
        "of them cached",
        "tokens out",
        "failed",
        "unfinished",
        "without usage",
    ]
    rows = [head + ["cost"] * bool(prices)]
    for name, line in [(line.key or "(no key)", line) for line in lines] + [("all", summed(lines))]:
        counts = [line.requests, line.prompt_tokens, line.cached_tokens, line.completion_tokens]
        row = [name, *(f"{count:,}" for count in (*counts, line.failed, line.unfinished, line.without_usage))]
        rows.append([*row, f"{prices.cost(line):,.6f}"] if prices else row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_aligned(row, widths) for row in rows)


def summed(lines: Sequence[Totals]) -> Totals:
    """All lines as one, of no key."""
    return Totals(
        key="",
        requests=sum(line.requests for line in lines),
        failed=sum(line.failed for line in lines),
        unfinished=sum(line.unfinished for line in lines),
        without_usage=sum(line.without_usage for line in lines),
        prompt_tokens=sum(line.prompt_tokens for line in lines),
        cached_tokens=sum(line.cached_tokens for line in lines),
        completion_tokens=sum(line.completion_tokens for line in lines),
        failed_tokens=sum(line.failed_tokens for line in lines),
    )


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """The name to the left, the numbers to the right."""
    cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
    return "  ".join([row[0].ljust(widths[0]), *cells[1:]])


def _price(text: str) -> Decimal:
    try:
        price = Decimal(text)
    except InvalidOperation:
        price = Decimal("NaN")
    if not price.is_finite() or price < 0:
        raise LabsupportError(
            f"{text!r} is no price", allowed="a decimal number per million tokens, 0 or more, like 0.15"
        )
    return price
