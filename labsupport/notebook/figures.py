"""The one way to draw a figure in a lesson: `with figure(alt=…, table=…) as axes:`.

Right means that nobody is left out. The words of `alt` say what the picture shows, the data stands below it
as a table, the colours are told apart by everybody, and the picture is a PNG that any viewer of notebooks
shows. A figure without alt text or without data does not get drawn.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from labsupport.errors import LabsupportError
from labsupport.notebook import palette
from labsupport.notebook.tables import Column, table_html

DOTS_PER_INCH = 144
INCHES_WIDE = 8.0
PIXELS_WIDE = int(INCHES_WIDE * 96)  # on the page; the picture itself has more, for sharp screens
FEWEST_ALT_WORDS = 6


class FigureError(LabsupportError):
    """A figure that some readers could not read."""


@dataclass(frozen=True)
class Picture:
    """A drawn figure: `png` bytes, the `alt` text and the table, as Jupyter and an explorer show it."""

    png: bytes
    alt: str
    table: str

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, object], dict[str, object]]:
        encoded = base64.b64encode(self.png).decode("ascii")
        data: dict[str, object] = {
            "text/html": self.html(),
            "image/png": encoded,
            "text/plain": f"Figure: {self.alt}",
        }
        return data, {"image/png": {"width": PIXELS_WIDE}}

    def html(self) -> str:
        """The picture with its alt text, and its data folded away below it."""
        encoded = base64.b64encode(self.png).decode("ascii")
        return (
            f'<img style="width: min({PIXELS_WIDE}px, 100%);" alt="{html.escape(self.alt)}"'
            f' src="data:image/png;base64,{encoded}">'
            f"<details><summary>The data of this figure as a table</summary>{self.table}</details>"
        )


def checked_alt(alt: str) -> str:
    """`alt` in one line; raises `FigureError` when it says too little to stand for the picture."""
    words = " ".join(alt.split())
    if len(words.split()) < FEWEST_ALT_WORDS:
        raise FigureError(
            f"the alt text {alt!r} does not say what the figure shows",
            allowed=f"at least {FEWEST_ALT_WORDS} words: what is drawn, and what there is to see in it",
            remedy="write what you would tell a colleague on the phone",
        )
    return words


def render(figure_: Any, *, alt: str, table: Mapping[str, Column]) -> Picture:
    """A matplotlib figure as a `Picture`."""
    words = checked_alt(alt)
    data = table_html(table, caption=words)
    buffer = io.BytesIO()
    figure_.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return Picture(png=buffer.getvalue(), alt=words, table=data)


@contextmanager
def figure(
    *, alt: str, table: Mapping[str, Column], inches_tall: float = 3.6, panels: int = 1
) -> Iterator[Any]:
    """Draw into the axes that this yields; the figure is shown when the block ends.

    `alt` says in words what is to be seen, `table` maps headings (with units) to the drawn values. With
    `panels` above 1 it yields that many axes side by side. Nothing is shown if the block raises.
    Raises `FigureError` or `TableError` before anything is drawn.
    """
    import matplotlib as mpl
    from IPython.display import display
    from matplotlib.figure import Figure

    checked_alt(alt)
    table_html(table, caption=alt)
    with mpl.rc_context(palette.rc_parameters()):
        drawing = Figure(figsize=(INCHES_WIDE, inches_tall), layout="constrained")
        axes = drawing.subplots(1, panels)
        yield axes
        display(render(drawing, alt=alt, table=table))
