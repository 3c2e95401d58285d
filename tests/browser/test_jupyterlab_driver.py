"""The harness itself: what it reports of a notebook is what a reader would see there."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from jupyterlab_driver import Notebook, browser_page, running_lab
from PIL import Image

pytestmark = pytest.mark.browser

SLIDER = """\
import ipywidgets, matplotlib.pyplot as plt
from IPython.display import display
out, slider = ipywidgets.Output(), ipywidgets.IntSlider(value=3, min=1, max=20)
def draw(change=None):
    with out:
        out.clear_output(wait=True)
        figure, axes = plt.subplots(figsize=(4, 2))
        axes.bar(range(slider.value), range(slider.value))
        display(figure)
        plt.close(figure)
slider.observe(draw, "value")
draw()
display(ipywidgets.VBox([slider, out]))"""


def test_a_dragged_slider_redraws_an_error_is_reported_and_a_picture_shows_all(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(SLIDER), nbformat.v4.new_code_cell("print('before')")]
    cells += [nbformat.v4.new_markdown_cell("a tall cell\n\n" * 60)]
    cells += [nbformat.v4.new_code_cell("raise ValueError('on purpose')")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "probe.ipynb")

    with running_lab(tmp_path) as lab, browser_page(width=1000, height=700) as page:
        opened = Notebook(page, lab, "probe.ipynb")
        opened.run_all()
        opened.wait_for_picture(0)
        before = opened.image_hashes(0)
        opened.drag(opened.cell(0).locator(".noUi-handle"), pixels=60)
        after = opened.wait_for_other_picture(0, before)
        assert len(before) == len(after) == 1
        assert opened.text_of(opened.find_cell("'before'")) == "before"
        assert opened.errors() == ["cell 3: ValueError: on purpose"]

        opened.set_source(1, "print('after')")
        opened.run_cell(1)
        assert opened.text_of(1) == "after"

        opened.picture(tmp_path / "whole.png")
    assert Image.open(tmp_path / "whole.png").height > 60 * 20 > 700
