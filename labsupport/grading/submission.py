"""Submissions: finding them in a folder, and reading a notebook that anybody may have written.

Right means that nothing is assumed of the file: it may be missing, a link, a folder, too large, not text, not
JSON, not a notebook. Each of these is a named state of its own, and none is a score of zero.
"""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labsupport.errors import LabsupportError
from labsupport.grading.exercise import Lab
from labsupport.grading.session import Cell

LARGEST_NOTEBOOK_BYTES = 20 * 2**20


class UnreadableError(Exception):
    """The notebook is there but cannot be read as one; the text says why."""


@dataclass(frozen=True)
class Submission:
    """One student's notebook of one lab; `path` is where it is, or `None` and `lack` says what was found."""

    student: str
    lab: Lab
    path: Path | None
    lack: str = ""


def find(folder: Path, labs: tuple[Lab, ...]) -> list[Submission]:
    """The submissions in `folder`, by student, then lab.

    Layouts: `STUDENT/LAB/NOTEBOOK` (nbgrader's), `STUDENT/NOTEBOOK`, or `folder` is itself one notebook. A
    student is whoever has a folder; a lab counts if anybody has it. Raises `LabsupportError` if there is
    nothing to grade.
    """
    if folder.is_file():
        lab = next((lab for lab in labs if lab.notebook == folder.name), None)
        if lab is None:
            raise LabsupportError(
                f"{folder.name} is not the notebook of a lab.",
                allowed=", ".join(lab.notebook for lab in labs),
            )
        return [Submission("you", lab, folder)]
    if not folder.is_dir():
        raise LabsupportError(
            f"There is no folder of submissions at {folder}.",
            remedy="collect them as STUDENT/LAB/NOTEBOOK, such as submitted/ada/lab01/lab01_weights.ipynb",
        )
    students = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [_of(student, lab) for student in students for lab in labs]
    handed_in = {submission.lab.name for submission in found if submission.path is not None}
    if not students:
        raise LabsupportError(
            f"{folder} holds no student's folder.",
            remedy="collect submissions as SUBMISSIONS/STUDENT/LAB/NOTEBOOK",
        )
    return [one for one in found if one.lab.name in handed_in or len(labs) == 1]


def _of(student: Path, lab: Lab) -> Submission:
    for path in (student / lab.name / lab.notebook, student / lab.notebook):
        if path.exists() or path.is_symlink():
            return Submission(student.name, lab, path)
    others = sorted(path.name for folder in (student / lab.name, student) for path in folder.glob("*.ipynb"))
    lack = f"There is no {lab.notebook} in {student.name}/{lab.name}/ or {student.name}/."
    return Submission(
        student.name, lab, None, lack + (f" Found instead: {', '.join(others[:5])}." if others else "")
    )


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook at `path` as JSON, checked to be one. Raises `UnreadableError`."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("it is not a plain file (a link, a folder or a device)")
        if status.st_size > LARGEST_NOTEBOOK_BYTES:
            raise UnreadableError(
                f"it is larger than {LARGEST_NOTEBOOK_BYTES // 2**20} MiB; clear its outputs"
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UnreadableError(f"it cannot be opened: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnreadableError("it is not text (UTF-8)") from error
    try:
        notebook = json.loads(text)
    except ValueError as error:
        raise UnreadableError(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise UnreadableError("it is not JSON that can be read: nested too deep") from error
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise UnreadableError("it is JSON, but not a notebook: it has no list of cells")
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[Cell]:
    """The code cells in order, counted from 1. `UnreadableError` for a cell that is none."""
    cells: list[Cell] = []
    for cell in notebook["cells"]:
        if not isinstance(cell, dict):
            raise UnreadableError("it is JSON, but not a notebook: a cell is not an object")
        source = cell.get("source", "")
        if isinstance(source, list):
            source = "".join(line for line in source if isinstance(line, str))
        if not isinstance(source, str):
            raise UnreadableError("it is JSON, but not a notebook: a cell's source is not text")
        if cell.get("cell_type") == "code":
            cells.append(Cell(len(cells) + 1, source))
    return cells
