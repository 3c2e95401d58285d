"""Every committed lesson: what nbval compares of it is all of it, and it is what its source makes.

nbval itself runs in the same pytest run: `make test` names the folder `lessons` beside `tests`.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from labsupport.notebook.build import converted
from tests.course.notebook_guard import complaints

LESSONS = Path(__file__).parents[2] / "lessons"
SOURCES = sorted((LESSONS / "src").glob("[0-9][0-9]_*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_committed_notebook_is_compared_in_full_and_is_what_its_source_makes(source):
    notebook = nbformat.read(LESSONS / f"{source.stem}.ipynb", as_version=4)
    assert complaints(notebook, converted(source)) == []


def test_every_notebook_in_lessons_has_a_source_and_every_source_a_notebook():
    assert [path.stem for path in sorted(LESSONS.glob("*.ipynb"))] == [path.stem for path in SOURCES]
