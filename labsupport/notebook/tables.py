"""A table of plain values as HTML: what a figure offers to whoever cannot see it, or wants the numbers."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from labsupport.errors import LabsupportError

Column = Sequence[object]


class TableError(LabsupportError):
    """A table that says nothing: no column, no row, or columns of different lengths."""


def cell_text(value: object) -> str:
    """How one value is written: whole numbers with thousands separators, other numbers to 4 digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def plain_value(value: object) -> object:
    """The Python value inside a numpy or torch scalar; everything else as it is."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def table_html(columns: Mapping[str, Column], *, caption: str) -> str:
    """An HTML table with a caption and header cells that screen readers announce.

    `columns` maps each heading (with its unit) to its values, all columns of one length. Raises
    `TableError` when there is nothing in it.
    """
    lengths = {heading: len(values) for heading, values in columns.items()}
    if not lengths or not all(lengths.values()) or len(set(lengths.values())) > 1:
        raise TableError(
            f"a table with columns of these lengths: {lengths}",
            allowed="at least one column, each with the same number of values and at least one",
            remedy="give the figure's data as {'heading (unit)': [values …], …}",
        )
    head = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell_text(plain_value(value)))}</td>" for value in row) + "</tr>"
        for row in zip(*columns.values(), strict=True)
    )
    return (
        f"<table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )
