"""Numbers and links in prose: what the claim ledger's checker reads out of a lesson.

Right means that `16.06 GB`, `16 GB` and `16,060 MB` are recognised as one quantity at different precisions,
that `a thousand times` and `three quarters` are numbers too, that `GiB` is not `GB`, and that code and the
targets of links are not mistaken for statements.
"""

from __future__ import annotations

import ast
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
_TEENS = ("thir", "four", "fif", "six", "seven", "eigh", "nine")
_UNITS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
# "One" is left alone: it is an article more often than a number.
WORDS = {
    **{word: number for number, word in enumerate(_UNITS, start=2)},
    **{f"{stem}teen": number for number, stem in enumerate(_TEENS, start=13)},
    **{f"{stem}ty": 10 * number for number, stem in enumerate(("twen", *_TEENS), start=2)},
    **{"forty": 40, "eighteen": 18},
}
PARTS = {"third": 3, "quarter": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10, "hundredth": 100}
CROWDS = {"tens": 10, "dozens": 12, "hundreds": 100, "thousands": 1000, "millions": 10**6}
_WORD = "|".join(sorted(WORDS, key=len, reverse=True))
_SCALE = "thousand|million|billion|trillion"
FRACTION = re.compile(rf"\b({_WORD})[ -]({'|'.join(PARTS)})s\b", re.IGNORECASE)
CROWD = re.compile(rf"\b({'|'.join(CROWDS)}) of ({_SCALE})s\b", re.IGNORECASE)
HUNDRED = re.compile(rf"\b(an?|one|{_WORD}) hundred\b", re.IGNORECASE)
ONE_SCALE = re.compile(rf"\b(?:an?|one) (?=(?:{_SCALE})\b)", re.IGNORECASE)
WORD = re.compile(rf"\b({_WORD})(?:-({_WORD}|one))?\b", re.IGNORECASE)
LINK = re.compile(r"\[(?P<text>[^\]\[]+)\]\((?P<target>[^)\s]+)\)")
QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]")
FEWEST_QUOTED_WORDS = 6
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


def in_digits(text: str) -> str:
    """Each paragraph on one line, number words in digits: `four fifths` → `80%`."""
    value = {"a": 1, "an": 1, "one": 1, **WORDS}
    text = re.sub(r"(?<!\n)\n(?!\n)", " ", text)
    text = FRACTION.sub(lambda m: f"{100 * WORDS[m[1].lower()] / PARTS[m[2].lower()]:.4g}%", text)
    text = CROWD.sub(lambda m: f"{CROWDS[m[1].lower()]} {m[2].lower()}", text)
    text = HUNDRED.sub(lambda m: str(100 * value[m[1].lower()]), text)
    text = ONE_SCALE.sub("1 ", text)
    return WORD.sub(lambda m: str(WORDS[m[1].lower()] + (value[m[2].lower()] if m[2] else 0)), text)


def quantities(text: str) -> list[Quantity]:
    """Every number in the text, in digits or in words, with its scale and unit taken into account."""
    found = []
    for match in NUMBER.finditer(in_digits(text)):
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


def alt_texts(source: str) -> Iterator[Passage]:
    """What is written in the alt texts of a jupytext percent file; what is computed into them is left out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "alt":
            written = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
            yield Passage(" … ".join(text for text in written if isinstance(text, str)), node.lineno)


def quoted(passage: str) -> list[str]:
    """Quotations of at least `FEWEST_QUOTED_WORDS` words: shorter ones are words held with tweezers."""
    text = LINK.sub(lambda m: m["text"], re.sub(r"```.*?```|`[^`]*`", " ", passage, flags=re.DOTALL))
    found = (" ".join(match.split()) for match in QUOTED.findall(text))
    return [words for words in found if len(words.split()) >= FEWEST_QUOTED_WORDS]
