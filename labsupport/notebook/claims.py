"""The claim ledger: every number that a lesson's prose relies on, with the proof of it.

`lessons/claims.toml` holds the claims. One with `check` is a Python expression over labsupport's rooms, which
is evaluated here; one with `source` quotes what somebody opened and read, on which day. In prose a number is
a link to its claim. Right means that nothing can drift: `problems(folder)` is empty only while every link has
its claim, every claim is used, every value is what its check, its quotation and its link texts say, no number
with a unit stands unlinked (in words, digits or an alt text), and no sentence is quoted that nobody read.
`python -m labsupport.notebook.claims check|write FOLDER` does it for CI.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path

from labsupport.errors import LabsupportError
from labsupport.notebook.claim_text import (
    alt_texts,
    claim_links,
    prose,
    quantities,
    quoted,
    unit_factor,
    unlinked,
)
from labsupport.notebook.questions import read_questions

LONGEST_QUOTATION_WORDS = 25
SOURCE_FIELDS = ("title", "publisher", "url", "read", "quotation")
KINDS = ("fact", "spec", "price")


class LedgerError(LabsupportError):
    """`claims.toml` is missing or is not TOML."""


@dataclass(frozen=True)
class Source:
    """What was read, where, and on which day; `as_of` is the day the value held, for prices and specs."""

    title: str
    publisher: str
    url: str
    read: date
    quotation: str
    as_of: date | None = None


@dataclass(frozen=True)
class Claim:
    """One statement. `value` is a number in `unit`, or a text; it has a `check` or a `source`, never both."""

    id: str
    says: str
    value: Decimal | str
    unit: str = ""
    kind: str = "fact"
    check: str = ""
    source: Source | None = None

    @property
    def base_value(self) -> float:
        """The number in base units (bytes for every unit of bytes)."""
        return float(self.value) * unit_factor(self.unit)

    @property
    def shown(self) -> str:
        return f"{self.value} {self.unit}".strip()

    def is_in(self, text: str) -> bool:
        """Whether the value stands in the text: word for word, or rounded to the digits shown there."""
        if isinstance(self.value, str):
            return self.value.casefold() in " ".join(text.split()).casefold()
        return any(quantity.means(self.base_value, self.unit) for quantity in quantities(text))


@dataclass(frozen=True)
class Problem:
    """One broken rule, and where."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class _Room:
    """A room, or a module in it, as a check names it: what it does not have yet is imported."""

    def __init__(self, name: str) -> None:
        self._module = importlib.import_module(name)

    def __getattr__(self, name: str) -> object:
        if hasattr(self._module, name):
            return getattr(self._module, name)
        try:
            return _Room(f"{self._module.__name__}.{name}")
        except ModuleNotFoundError as error:
            raise AttributeError(f"{self._module.__name__} has no {name!r}") from error


class _Rooms(dict[str, object]):
    """The names a check may use: labsupport's rooms, imported when named, and a little arithmetic."""

    def __init__(self) -> None:
        super().__init__(sum=sum, min=min, max=max, len=len, round=round)

    def __missing__(self, name: str) -> object:
        try:
            return _Room(f"labsupport.{name}")
        except ModuleNotFoundError as error:
            raise KeyError(name) from error


def read_ledger(path: Path) -> tuple[dict[str, Claim], list[Problem]]:
    """The claims of a ledger by id, and what is wrong with the form of the others.

    Raises `LedgerError` when there is no ledger to read at all.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, ValueError) as error:
        raise LedgerError(f"{path} cannot be read: {error}", remedy="restore it, or mend its TOML") from error
    claims, found = {}, []
    for name, table in tables.items():
        try:
            claims[name] = _claim(name, table)
        except (KeyError, TypeError, ValueError) as error:
            found.append(Problem(f"{path.name} [{name}]", str(error).strip("'\"")))
    return claims, found


def _claim(name: str, table: Mapping[str, object]) -> Claim:
    if not isinstance(table, Mapping):
        raise ValueError("is not a table with says, value and check or source")
    fields = dict(table)
    source = fields.pop("source", None)
    unknown = set(fields) - {"says", "value", "unit", "kind", "check"}
    missing = {"says", "value"} - set(fields)
    if unknown or missing:
        raise ValueError(f"unknown fields {sorted(unknown)}, missing fields {sorted(missing)}")
    if ("check" in fields) == (source is not None):
        raise ValueError("needs either a check or a source, and not both")
    value = fields.pop("value")
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise ValueError(f"value {value!r} is neither a number nor a text")
    claim = Claim(
        id=name,
        value=value if isinstance(value, str) else Decimal(value),
        source=None if source is None else _source(source),
        **{key: str(text) for key, text in fields.items()},
    )
    if claim.kind not in KINDS:
        raise ValueError(f"kind {claim.kind!r} is none of {', '.join(KINDS)}")
    if claim.kind != "fact" and (claim.source is None or claim.source.as_of is None):
        raise ValueError(f"a {claim.kind} needs a source with as_of, the day on which it held")
    return claim


def _source(table: object) -> Source:
    if not isinstance(table, Mapping):
        raise ValueError("source is not a table")
    missing = [field for field in SOURCE_FIELDS if not table.get(field)]
    if missing:
        raise ValueError(f"the source lacks {', '.join(missing)}")
    source = Source(**table)
    if not isinstance(source.read, date) or source.read > date.today():
        raise ValueError(f"the source was read on {source.read!r}, which is not a day in the past")
    if not str(source.url).startswith("https://"):
        raise ValueError(f"the source's url {source.url!r} does not begin with https://")
    words = len(source.quotation.split())
    if words > LONGEST_QUOTATION_WORDS:
        raise ValueError(f"the quotation has {words} words, and {LONGEST_QUOTATION_WORDS} are allowed")
    return source


def evidence_problem(claim: Claim) -> str:
    """What the claim's own check or quotation has against its value; empty when they agree."""
    if claim.source:
        return "" if claim.is_in(claim.source.quotation) else f"the quotation does not contain {claim.shown}"
    try:
        # The ledger is the course's own source code, reviewed as such; it is not a reader's input.
        result = eval(claim.check, {"__builtins__": {}}, _Rooms())
    except Exception as error:
        return f"the check failed: {type(error).__name__}: {error}"
    if isinstance(claim.value, str):
        return (
            ""
            if str(result) == claim.value
            else f"the check gives {result!r}, the ledger says {claim.value!r}"
        )
    exponent = claim.value.as_tuple().exponent
    half_digit = 0.5 * 10.0**exponent if isinstance(exponent, int) and exponent < 0 else 0.0
    number = float(result)
    if abs(number - float(claim.value)) <= half_digit + 1e-9 * abs(number):
        return ""
    return f"the check gives {number:.10g}, the ledger says {claim.value}"


def _passages(folder: Path, also_linking: Sequence[Path]) -> Iterator[tuple[str, str, bool]]:
    """(where, text, whether an unlinked number in it is a fault) of all prose, alt texts and questions."""
    lessons = sorted((folder / "src").glob("*.py"))
    for path in [*lessons, *also_linking]:
        source = path.read_text(encoding="utf-8")
        for passage in [*prose(source), *(alt_texts(source) if path in lessons else ())]:
            yield f"{path.name}:{passage.line}", passage.text, path in lessons
    if (folder / "questions.toml").exists():
        for name, quiz in read_questions(folder / "questions.toml").items():
            texts = [quiz.question, *(f"{option.text}\n\n{option.because}" for option in quiz.options)]
            yield f"questions.toml [{name}]", "\n\n".join(texts), True


def problems(folder: Path, *, also_linking: Sequence[Path] = ()) -> list[Problem]:
    """Every rule of the ledger that the lessons in `folder`/src and their questions break.

    `also_linking` are further jupytext files (the labs) whose links count as uses; their unlinked numbers are
    exercise statements and are let pass.
    """
    claims, found = read_ledger(folder / "claims.toml")
    found += [
        Problem(f"claims.toml [{c.id}]", what) for c in claims.values() if (what := evidence_problem(c))
    ]
    used: set[str] = set()
    for where, text, is_statement in _passages(folder, also_linking):
        for words, name in claim_links(text):
            used.add(name)
            claim = claims.get(name)
            if claim is None:
                found.append(Problem(where, f"[{words}] links to {name!r}, which claims.toml does not have"))
            elif not claim.is_in(words):
                found.append(Problem(where, f"[{words}] does not say {claim.shown}, the value of {name!r}"))
        if is_statement:
            found += [Problem(where, f"{number!r} has a unit and no claim") for number in unlinked(text)]
            found += [
                Problem(where, f"“{words}” stands in no claim's quotation")
                for words in quoted(text)
                if not any(words in " ".join(c.source.quotation.split()) for c in claims.values() if c.source)
            ]
    found += [
        Problem(f"claims.toml [{name}]", "no lesson uses this claim") for name in claims if name not in used
    ]
    return found


def ledger_page(folder: Path) -> str:
    """`CLAIMS.md`: the ledger as a page, one heading per claim, so that a link lands on it."""
    claims, _ = read_ledger(folder / "claims.toml")
    parts = [
        "# Claims",
        "Every number that the lessons rely on, with its proof: a check that CI evaluates, or a source that "
        "somebody read on the day given. Generated from `claims.toml`; edit that file.",
    ]
    for claim in sorted(claims.values(), key=lambda claim: claim.id):
        parts += [f"## {claim.id}", f"{claim.says}", f"**Value:** {claim.shown}"]
        if claim.source is None:
            parts.append(f"**Check:** `{claim.check}`")
            continue
        source = claim.source
        held = f", as of {source.as_of}" if source.as_of else ""
        parts.append(
            f"**Source:** [{source.title}]({source.url}), {source.publisher}; read {source.read}{held}"
        )
        parts.append(f"> {source.quotation}")
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str]) -> int:
    """`check FOLDER` prints every problem and fails if there is one; `write FOLDER` writes CLAIMS.md."""
    if len(arguments) != 2 or arguments[0] not in {"check", "write"}:
        print("usage: python -m labsupport.notebook.claims check|write FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[1])
    try:
        if arguments[0] == "write":
            (folder / "CLAIMS.md").write_text(ledger_page(folder), encoding="utf-8")
            return 0
        labs = sorted((folder.parent / "labs" / "src").glob("*.py"))
        found = problems(folder, also_linking=labs)
    except LabsupportError as error:
        print(error, file=sys.stderr)
        return 1
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
