"""Predict, lock, measure, score: a guess is worth something only if it was written down before the answer.

`predict` asks, and locks what the reader answers. `score` puts a measurement beside it, as a ratio, with the
physical limit and the range of the machine's tier where there are such.
Right means that a locked guess never changes, that one locked after its
measurement is counted as late, and that a page without a reader says "no prediction" and goes on.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from labsupport.errors import LabsupportError
from labsupport.notebook import reader_log
from labsupport.notebook.reader_log import Entry
from labsupport.notebook.tables import cell_text, plain_value
from labsupport.notebook.tier_range import TierRange

NO_PREDICTION = "no prediction"


class PredictionError(LabsupportError):
    """A guess or a measurement that no ratio can be made of."""


@dataclass(frozen=True)
class Locked:
    """A guess that can no longer change. `late`: it was locked after the measurement had been shown."""

    name: str
    value: float
    unit: str
    at: str
    late: bool


@dataclass(frozen=True)
class Score:
    """A measurement beside the prediction and the limit. `ratio` is measured / predicted, or None."""

    name: str
    measured: float
    unit: str
    predicted: Locked | None
    limit: float | None = None
    limit_name: str = ""
    tier: TierRange | None = None

    @property
    def ratio(self) -> float | None:
        return self.measured / self.predicted.value if self.predicted else None

    @property
    def verdict(self) -> str:
        """What the ratio is worth, in words."""
        if self.ratio is None:
            return NO_PREDICTION
        factor = max(self.ratio, 1 / self.ratio)
        direction = "more" if self.ratio > 1 else "less"
        if factor <= 1.1:
            return "within a tenth of your prediction"
        if factor <= 2:
            return f"{factor:.1f}× {direction} than you predicted: the right size"
        if factor <= 10:
            return f"{factor:.1f}× {direction} than you predicted: the right order of magnitude"
        return f"{factor:,.0f}× {direction} than you predicted: find out why before you go on"

    def lines(self) -> list[tuple[str, str]]:
        """What to show, as (label, text)."""
        guess = self.predicted
        shown = (
            f"{cell_text(guess.value)} {self.unit}{' (locked late)' if guess.late else ''}"
            if guess
            else NO_PREDICTION
        )
        lines = [("You predicted", shown), ("Measured", f"{cell_text(self.measured)} {self.unit}")]
        if guess:
            lines.append(("That is", self.verdict))
        if self.limit is not None:
            share = self.measured / self.limit
            lines.append(
                (self.limit_name, f"{cell_text(self.limit)} {self.unit} (measured is {share:.0%} of it)")
            )
        if self.tier:
            reach = (
                f"{cell_text(self.tier.low)} ({self.tier.low_device}) to "
                f"{cell_text(self.tier.high)} ({self.tier.high_device}) {self.unit}"
            )
            lines.append((f"The tier {self.tier.tier!r} allows, by printed bandwidth", reach))
        return lines

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        rows = "".join(
            f'<tr><th scope="row" style="text-align: left;">{html.escape(label)}</th>'
            f'<td style="text-align: left;">{html.escape(text)}</td></tr>'
            for label, text in self.lines()
        )
        plain = "\n".join(f"{label}: {text}" for label, text in self.lines())
        return {"text/html": f"<table>{rows}</table>", "text/plain": plain}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _positive(value: object, meaning: str) -> float:
    number = plain_value(value)
    if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or not math.isfinite(number)
        or number <= 0
    ):
        raise PredictionError(
            f"{meaning} of {value!r}", allowed="a finite number above 0", remedy="guess a size, however rough"
        )
    return float(number)


def history() -> dict[str, tuple[Locked | None, list[Entry]]]:
    """For each name: its locked guess, if any, and its measurements, oldest first."""
    guesses: dict[str, Locked] = {}
    measurements: dict[str, list[Entry]] = {}
    for entry in reader_log.entries():
        if entry.event == "forgotten":
            guesses.pop(entry.name, None)
        elif entry.value is None:
            continue
        elif entry.event == "measured":
            measurements.setdefault(entry.name, []).append(entry)
        elif entry.name not in guesses:
            late = bool(measurements.get(entry.name))
            guesses[entry.name] = Locked(entry.name, entry.value, entry.unit, entry.at, late)
    names = [*dict.fromkeys([*guesses, *measurements])]
    return {name: (guesses.get(name), measurements.get(name, [])) for name in names}


def locked(name: str) -> Locked | None:
    """The locked guess of that name, if there is one."""
    return history().get(name, (None, []))[0]


def lock(name: str, value: float, unit: str) -> Locked:
    """Lock a guess, or return the one already locked. Raises `PredictionError` unless it is above 0."""
    reader_log.append(Entry("predicted", name, _now(), _positive(value, "a prediction"), unit))
    kept = locked(name)
    assert kept is not None  # it was written in the line above
    return kept


def forget(name: str) -> None:
    """Unlock a guess, to predict again. The measurements already seen stay on record."""
    reader_log.append(Entry("forgotten", name, _now()))


@dataclass(frozen=True)
class Prediction:
    """A question for a number; shown as a field and a button that locks the answer."""

    name: str
    question: str
    unit: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        bundle: dict[str, object] = dict(self.widget()._repr_mimebundle_())
        # The same text whatever is locked, so that a saved page does not depend on who saved it.
        bundle["text/plain"] = f"Predict, in {self.unit}: {self.question}"
        return bundle

    def widget(self) -> Any:
        """A number field, a button and a status line that screen readers announce."""
        import ipywidgets as widgets

        field = widgets.Text(
            placeholder="your guess",
            description=f"{self.unit}:",
            style={"description_width": "initial"},
            layout={"width": "20em"},
        )
        button = widgets.Button(description="Lock my prediction", icon="lock", layout={"width": "14em"})
        status = widgets.HTML()

        def show(message: str) -> None:
            status.value = f'<span role="status" aria-live="polite">{html.escape(message)}</span>'

        def show_locked(guess: Locked) -> None:
            field.value, field.disabled, button.disabled = cell_text(guess.value), True, True
            show(f"Locked: {cell_text(guess.value)} {guess.unit}. Run the cells below to measure.")

        def press(_: object) -> None:
            try:
                show_locked(lock(self.name, float(field.value.replace(",", "")), self.unit))
            except ValueError:
                show(f"{field.value!r} is not a number. Write digits, such as 12 or 0.5.")
            except LabsupportError as error:
                show(str(error))

        button.on_click(press)
        guess = locked(self.name)
        if guess:
            show_locked(guess)
        else:
            show(f"{NO_PREDICTION.capitalize()} yet. Write a number, then lock it.")
        question = widgets.HTML(f"<strong>Predict:</strong> {html.escape(self.question)}")
        return widgets.VBox([question, widgets.HBox([field, button]), status])


def predict(name: str, question: str, *, unit: str, guess: float | None = None) -> Prediction:
    """Ask for a number in `unit` before it is measured. `guess` locks an answer from code at once."""
    if guess is not None:
        lock(name, guess, unit)
    return Prediction(name, question, unit)


def score(
    name: str,
    measured: float,
    *,
    unit: str,
    limit: float | None = None,
    limit_name: str = "",
    tier: TierRange | None = None,
) -> Score:
    """Put a measurement beside the locked guess of that name, if there is one, a limit, and its tier's range.

    Raises `PredictionError` when the guess was made in another unit, or a number is not above 0.
    """
    value = _positive(measured, "a measurement")
    guess = locked(name)
    if guess and guess.unit != unit:
        raise PredictionError(
            f"{name!r} was predicted in {guess.unit} and measured in {unit}",
            remedy=f"unlock it with forget({name!r}), and predict again",
        )
    result = Score(
        name, value, unit, guess, None if limit is None else _positive(limit, "a limit"), limit_name, tier
    )
    try:
        reader_log.append(Entry("measured", name, _now(), value, unit))
    except reader_log.LogUnwritableError:
        return result  # a lesson goes on without its diary; `predict` has already told the reader
    return result
