"""An explorer: at most three controls over one figure that redraws while a control moves.

One explorer shows one law. Right means that the figure follows the control, that it works by keyboard (every
control is a native slider or list with a label), that it says in words what it shows now, and that it leaves
a picture behind on a page that nobody runs.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labsupport.errors import LabsupportError
from labsupport.notebook import palette
from labsupport.notebook.figures import INCHES_WIDE, Picture, render
from labsupport.notebook.tables import Column

MOST_CONTROLS = 3

Draw = Callable[..., tuple[str, Mapping[str, Column]]]


class ExplorerError(LabsupportError):
    """An explorer with too many controls, or with none."""


@dataclass(frozen=True)
class Slider:
    """A number between `low` and `high` in steps of `step`; `powers_of_ten` makes all three exponents."""

    label: str
    value: float
    low: float
    high: float
    step: float
    powers_of_ten: bool = False

    def widget(self) -> Any:
        import ipywidgets as widgets

        look = {"style": {"description_width": "13em"}, "layout": {"width": "min(36em, 100%)"}}
        if self.powers_of_ten:
            return widgets.FloatLogSlider(
                value=self.value, base=10, min=self.low, max=self.high, step=self.step, readout_format=".3g",
                description=self.label, **look,
            )  # fmt: skip
        whole = all(float(number).is_integer() for number in (self.value, self.low, self.high, self.step))
        kind = widgets.IntSlider if whole else widgets.FloatSlider
        number = int if whole else float
        return kind(
            value=number(self.value), min=number(self.low), max=number(self.high), step=number(self.step),
            description=self.label, **look,
        )  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """One of a few named options; `draw` is handed the option's text."""

    label: str
    options: Sequence[str]
    value: str

    def widget(self) -> Any:
        import ipywidgets as widgets

        return widgets.Dropdown(
            options=list(self.options), value=self.value, description=self.label,
            style={"description_width": "13em"}, layout={"width": "min(36em, 100%)"},
        )  # fmt: skip


class Explorer:
    """`draw(axes, **values)` fills the axes and returns the alt text and the table of what it drew."""

    def __init__(
        self, title: str, draw: Draw, *, inches_tall: float = 3.2, **controls: Slider | Choice
    ) -> None:
        if not 1 <= len(controls) <= MOST_CONTROLS:
            raise ExplorerError(
                f"{len(controls)} controls: {sorted(controls)}",
                allowed=f"1 to {MOST_CONTROLS}",
                remedy="show one law per explorer; fix the other values",
            )
        self.title = title
        self.draw = draw
        self.inches_tall = inches_tall
        self.controls = controls
        self._widget: Any = None

    def values(self) -> dict[str, float | str]:
        """What every control says at the start."""
        return {name: control.value for name, control in self.controls.items()}

    def picture(self, **values: float | str) -> Picture:
        """The figure for these values; controls that are left out stand at their start."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        with mpl.rc_context(palette.rc_parameters()):
            drawing = Figure(figsize=(INCHES_WIDE, self.inches_tall), layout="constrained")
            alt, table = self.draw(drawing.subplots(), **(self.values() | values))
            return render(drawing, alt=alt, table=table)

    def widget(self) -> Any:
        """The controls above the figure; moving one redraws it."""
        import ipywidgets as widgets

        if self._widget is not None:
            return self._widget
        knobs = {name: control.widget() for name, control in self.controls.items()}
        screen = widgets.HTML(layout={"max_width": "56em"})

        def redraw(_: object = None) -> None:
            try:
                screen.value = self.picture(**{name: knob.value for name, knob in knobs.items()}).html()
            except LabsupportError as error:
                screen.value = f'<p role="alert">{html.escape(str(error))}</p>'

        for knob in knobs.values():
            knob.observe(redraw, names="value")
        redraw()
        heading = widgets.HTML(f"<strong>Explore:</strong> {html.escape(self.title)}")
        self._widget = widgets.VBox([heading, *knobs.values(), screen])
        return self._widget

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, object], dict[str, object]]:
        data, metadata = self.picture()._repr_mimebundle_()
        plain = f"Explorer: {self.title} Run this cell to move its controls."
        widget: dict[str, object] = dict(self.widget()._repr_mimebundle_())
        return widget | {"image/png": data["image/png"], "text/plain": plain}, metadata
