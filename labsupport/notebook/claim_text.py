"""Numbers and links in prose: what the claim ledger's checker reads out of a lesson.

Right means that `16.06 GB`, `16 GB` and `16,060 MB` are recognised as one quantity at different precisions,
that `GiB` is not `GB`, and that code and the targets of links are not mistaken for statements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

SCALES = {
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
    "trillion": 1e12,
    "k": 1e3,
    "M": 1e6,
    "B": 1e9,
    "T": 1e12,
}
BYTES = {
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(["", "k", "M", "G", "T", "P"]) if prefix},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate(["", "K", "M", "G", "T"]) if prefix},
    "bytes": 1,
    "byte": 1,
}
OTHER_UNITS = (
    "bits?|-bit|%|parameters|weights|tokens?|tensors?|layers?|FLOPs?|GFLOPs?|TFLOPs?|"
    "(?:GPU[ -])?hours?|days?|weeks?|months?|years?|minutes?|min|seconds?|ms|µs|s|"
    "users|requests|W|kW|kWh|GHz|MHz|Hz|×|times|(?:monthly )?active users|words|dollars|euros|USD|EUR"
)
_BYTE_UNITS = "|".join(sorted(map(re.escape, BYTES), key=len, reverse=True))
NUMBER = re.compile(
    rf"(?P<money>[$€£])?(?<![\w.,-])(?P<digits>\d[\d,]*(?:\.\d+)?)"
    rf"(?:[ \u00a0\u202f-]?(?P<scale>thousand|million|billion|trillion|[kMBT](?![A-Za-z])))?"
    rf"(?:[ \u00a0\u202f]?(?P<unit>(?:{_BYTE_UNITS}|{OTHER_UNITS})(?:/s)?(?![A-Za-z])))?"
)
LINK = re.compile(r"\[(?P<text>[^\]\[]+)\]\((?P<target>[^)\s]+)\)")
CLAIM_TARGET = re.compile(r"(?:\.\./lessons/|lessons/|\./)?CLAIMS\.md#(?P<id>[\w.-]+)$")


@dataclass(frozen=True)
class Quantity:
    """A number as written: its value in base units (bytes for byte units), and half of its last digit."""

    value: float
    half_digit: float
    unit: str
    text: str

    def means(self, value: float, unit: str) -> bool:
        """Whether `value` (in base units) in `unit`, rounded to the digits shown, reads like this."""
        return abs(self.value - value) <= self.half_digit + 1e-9 * abs(value) and self._fits(unit)

    def _fits(self, unit: str) -> bool:
        if self.unit in SCALES or not self.unit:
            return True
        words = unit.split()
        if self.unit.removesuffix("/s") in BYTES:
            return any(
                word.removesuffix("/s") in BYTES and word.endswith("/s") == self.unit.endswith("/s")
                for word in words
            )
        if self.unit == "money":
            return any(word in {"USD", "EUR", "GBP", "$", "€", "£"} for word in words)
        return self.unit.strip("-").rstrip("s") in unit


@dataclass(frozen=True)
class Passage:
    """A piece of prose and the line of the file on which it begins."""

    text: str
    line: int


def quantities(text: str) -> list[Quantity]:
    """Every number in the text, with its scale and unit taken into account."""
    found = []
    for match in NUMBER.finditer(text):
        digits, scale, unit = match["digits"].rstrip(","), match["scale"] or "", match["unit"] or ""
        per_second = unit.endswith("/s")
        factor = SCALES.get(scale, 1.0) * BYTES.get(unit.removesuffix("/s") if per_second else unit, 1)
        decimals = len(digits.partition(".")[2])
        half = 0.5 * 10.0**-decimals * factor
        name = "money" if match["money"] else unit or scale
        found.append(Quantity(float(digits.replace(",", "")) * factor, half, name, match[0].strip()))
    return found


def unit_factor(unit: str) -> float:
    """What one of the claim's unit is in base units: `GB` 10⁹, `million tokens` 10⁶, `hours` 1."""
    first, _, _ = unit.partition(" ")
    return float(SCALES.get(first, BYTES.get(first.removesuffix("/s"), 1)))


def claim_links(passage: str) -> list[tuple[str, str]]:
    """The (text, claim id) of every link into the ledger."""
    links = ((match["text"], CLAIM_TARGET.search(match["target"])) for match in LINK.finditer(passage))
    return [(text, target["id"]) for text, target in links if target]


def unlinked(passage: str) -> list[str]:
    """Numbers with a unit that stand in prose without a link to a claim.

    Exempt, as the course's rules have it: code, times to read (a line that begins with `**Time`), and
    hypotheses marked as given (a paragraph or list item that begins with `Given` or `**Given`).
    """
    text = re.sub(r"```.*?```", " ", passage, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", " ", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`", " ", text)
    text = re.sub(r"\$\$.*?\$\$", " ", text, flags=re.DOTALL)
    text = re.sub(r"^\s*(?:[-*>] )?\*\*Time\b.*$", " ", text, flags=re.MULTILINE)
    text = re.sub(
        r"^\s*(?:[-*>] )?(?:\*\*)?Given\b.*?(?=\n\s*\n|\Z)", " ", text, flags=re.MULTILINE | re.DOTALL
    )
    text = LINK.sub(lambda m: " " if CLAIM_TARGET.search(m["target"]) else m["text"], text)
    return [q.text for q in quantities(text) if q.unit and q.unit not in {"k", "M", "B", "T"}]


def prose(source: str) -> Iterator[Passage]:
    """The markdown cells of a jupytext percent file."""
    lines = source.splitlines()
    start, is_markdown = 0, False
    for number, line in enumerate([*lines, "# %%"]):
        if line.startswith("# %%"):
            if is_markdown:
                yield Passage("\n".join(re.sub(r"^# ?", "", row) for row in lines[start:number]), start + 1)
            start, is_markdown = number + 1, "[markdown]" in line
