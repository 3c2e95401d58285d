"""nbgrader's side of the workflow: the report's folder is an nbgrader course, with its grade book.

Scores and messages are written into the grade book as automatic grades and comments, and each notebook is
put where nbgrader expects graded work. `nbgrader formgrader`, `nbgrader generate_feedback` and `nbgrader
export` then work in that folder. Right means that the grade book's scores are the report's. It has no word
for "unreadable" or "absent": such submissions are not entered, and `nbgrader export` shows them as 0.0, so
trust `scores.csv` there.
"""

from __future__ import annotations

import contextlib
import html
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labsupport.errors import LabsupportError
from labsupport.grading.exercise import Lab
from labsupport.grading.feedback import grade_id
from labsupport.grading.grade import Result
from labsupport.grading.release import solved_notebook, student_notebook, written

COURSE_CONFIG = "c = get_config()\nc.CourseDirectory.root = {root!r}\n"


def require_sources(labs: Sequence[Lab], folder: Path) -> None:
    """Raise `LabsupportError` unless every lab's source is there; the grade book is made from it."""
    for lab in labs:
        if not lab.source(folder).is_file():
            raise LabsupportError(
                f"The source of {lab.name} is not at {lab.source(folder)}; the grade book is made from it.",
                remedy="run this in the course's own folder, or name its `labs` folder with --labs",
            )


def record(results: Sequence[Result], out: Path, labs_folder: Path) -> None:
    """Enter the judged results into `out/gradebook.db` and write source, release and graded notebooks."""
    from nbgrader.api import Gradebook
    from nbgrader.preprocessors import SaveCells
    from sqlalchemy.exc import SAWarning

    out.mkdir(parents=True, exist_ok=True)
    database = f"sqlite:///{out.resolve()}/gradebook.db"
    (out / "nbgrader_config.py").write_text(COURSE_CONFIG.format(root=str(out.resolve())), encoding="utf-8")
    with warnings.catch_warnings(), _alembic_on_path(), Gradebook(database) as book:
        # nbgrader builds its rows before it adds them; SQLAlchemy warns of that at every submission
        warnings.simplefilter("ignore", SAWarning)
        for lab in {result.lab.name: result.lab for result in results}.values():
            stem = Path(lab.notebook).stem
            released = student_notebook(lab, labs_folder)
            _write(out / "source" / lab.name / lab.notebook, written(solved_notebook(lab, labs_folder)))
            _write(out / "release" / lab.name / lab.notebook, written(released))
            book.update_or_create_assignment(lab.name)
            course = {"nbgrader": {"notebook": stem, "assignment": lab.name, "db_url": database}}
            SaveCells().preprocess(released, course)
            for result in results:
                if result.lab.name == lab.name and result.verdicts and result.notebook is not None:
                    _enter(book, result, stem)
                    graded = graded_notebook(result, released)
                    _write(out / "autograded" / result.student / lab.name / lab.notebook, written(graded))


def _enter(book: Any, result: Result, notebook: str) -> None:
    book.update_or_create_student(result.student)
    book.update_or_create_submission(result.lab.name, result.student)
    where = (notebook, result.lab.name, result.student)
    for verdict in result.verdicts:
        grade = book.find_grade(f"check_{verdict.exercise}", *where)
        grade.auto_score, grade.needs_manual_grade = float(verdict.earned), False
        book.find_comment(verdict.exercise, *where).auto_comment = verdict.message
    book.db.commit()


def graded_notebook(result: Result, released: Any) -> Any:
    """The student's notebook on the released one's terms.

    Text and checks are as released, answers as handed in, verdicts under the checks. What the student added
    stays: code without its outputs, text with its HTML escaped.
    """
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    assert result.notebook is not None
    ours = {cell["id"]: cell for cell in released.cells}
    verdicts = {f"check_{verdict.exercise}": verdict for verdict in result.verdicts}
    cells = []
    for handed_in in result.notebook["cells"]:
        source = handed_in.get("source", "")
        source = "".join(source) if isinstance(source, list) else source
        cell = ours.pop(grade_id(handed_in), None)
        if cell is None and handed_in.get("cell_type") == "code":
            cell = new_code_cell(source)
        elif cell is None:
            cell = new_markdown_cell(html.escape(source))
        elif cell.metadata.get("nbgrader", {}).get("solution"):
            cell = nbformat.from_dict({**cell, "source": source})
        cells.append(cell)
    cells += ours.values()
    for place, cell in enumerate(cells):
        if verdict := verdicts.get(cell["id"]):
            text = f"{verdict.outcome}: {verdict.earned} of {verdict.points}. {verdict.message}"
            output = new_output("stream", name="stdout", text=text)
            cells[place] = nbformat.from_dict({**cell, "outputs": [output]})
    return new_notebook(cells=cells, metadata=released.metadata)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def _alembic_on_path() -> Iterator[None]:
    """nbgrader calls the `alembic` of its own environment by name."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), before))
    try:
        yield
    finally:
        os.environ["PATH"] = before
