"""A figure leaves nobody out: words, a table, safe colours, a PNG."""

from __future__ import annotations

import base64
from itertools import pairwise

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from labsupport.notebook import palette
from labsupport.notebook.figures import FigureError, figure
from labsupport.notebook.tables import TableError, cell_text, table_html

ALT = "Two bars: the second is twice as tall as the first."


@pytest.fixture(autouse=True)
def notebook_shell():
    """`display` publishes outputs only inside an IPython shell."""
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def drawn(**changes):
    arguments = {"alt": ALT, "table": {"name": ["a", "b"], "height (cm)": [1, 2]}} | changes
    with capture_output() as captured, figure(**arguments) as axes:
        axes.bar(["a", "b"], [1, 2])
    return captured.outputs


def test_a_figure_is_a_png_with_its_alt_text_and_its_data():
    (output,) = drawn()
    assert base64.b64decode(output.data["image/png"])[:8] == b"\x89PNG\r\n\x1a\n"
    assert f'alt="{ALT}"' in output.data["text/html"]
    assert "<td>b</td><td>2</td>" in output.data["text/html"]
    assert output.data["text/plain"] == f"Figure: {ALT}"


@pytest.mark.parametrize("alt", ["", "A chart.", "   figure of the bars  "])
def test_a_figure_without_telling_words_is_not_drawn(alt):
    with pytest.raises(FigureError, match="alt text"):
        drawn(alt=alt)


@pytest.mark.parametrize("table", [{}, {"a": []}, {"a": [1, 2], "b": [1]}])
def test_a_figure_without_data_is_not_drawn(table):
    with pytest.raises(TableError, match="columns"):
        drawn(table=table)


def test_nothing_is_shown_when_drawing_fails():
    with capture_output() as captured, pytest.raises(ZeroDivisionError), figure(alt=ALT, table={"a": [1]}):
        1 / 0  # noqa: B018
    assert not captured.outputs


def test_two_panels_stand_side_by_side():
    with capture_output(), figure(alt=ALT, table={"a": [1]}, panels=2) as axes:
        assert len(axes) == 2


def test_markup_in_data_is_shown_not_obeyed():
    assert "&lt;script&gt;" in table_html({"<b>": ["<script>"]}, caption="x")
    assert '<th scope="col">&lt;b&gt;</th>' in table_html({"<b>": ["<script>"]}, caption="x")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12_345_678, "12,345,678"),
        (12_345.6, "12,346"),
        (123.456, "123.5"),
        (2.0, "2"),
        (0.5, "0.5"),
        (1.5e-9, "1.5e-09"),
        (True, "True"),
        ("x", "x"),
    ],
)
def test_numbers_in_tables_read_well(value, text):
    assert cell_text(value) == text


def test_numpy_scalars_are_plain_values_in_a_table():
    assert "<td>7</td>" in table_html({"n": [np.int64(7)]}, caption="x")


def lightness(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_neighbouring_colours_of_a_figure_differ_in_lightness_too():
    for one, next_one in pairwise(palette.CYCLE):
        assert abs(lightness(one) - lightness(next_one)) > 0.1, (one, next_one)
