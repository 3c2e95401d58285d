"""From a lab's source to the notebook that students get, and to the solved one that tests grade.

The source holds text, solutions and checks (`labs/src/labNN_topic.py`, jupytext percent, nbgrader's metadata
in the cell headers). nbgrader's own preprocessors check that metadata, strip the solutions, lock the checks
and sign the cells. Right means: run twice, the same bytes come out, and no line of a solution is among them.
`python -m labsupport.grading.release check|write FOLDER` does it for every lab.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labsupport.errors import LabsupportError
from labsupport.grading.exercise import Lab
from labsupport.grading.labs import LABS

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def solved_notebook(lab: Lab, labs: Path) -> Any:
    """The lab with its solutions, without outputs. Raises `LabsupportError` where there is no source."""
    import jupytext
    import nbformat

    source = lab.source(labs)
    try:
        notebook = jupytext.read(source)
    except OSError as error:
        raise LabsupportError(
            f"{source} cannot be read: {error.strerror}", remedy="give the folder `labs`"
        ) from error
    notebook.metadata = nbformat.from_dict(METADATA)
    for place, cell in enumerate(notebook.cells):
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.metadata.pop("lines_to_next_cell", None)
        cell["id"] = grade_id or hashlib.sha256(f"{lab.name}:{place}".encode()).hexdigest()[:8]
    return notebook


def student_notebook(lab: Lab, labs: Path) -> Any:
    """The lab as students get it: stubs in the place of solutions, checks locked, no outputs."""
    from nbgrader.preprocessors import (
        CheckCellMetadata,
        ClearHiddenTests,
        ClearOutput,
        ClearSolutions,
        ComputeChecksums,
        LockCells,
    )

    notebook, resources = solved_notebook(lab, labs), {"unique_key": lab.notebook}
    for preprocessor in (
        CheckCellMetadata,
        LockCells,
        ClearSolutions,
        ClearOutput,
        ClearHiddenTests,
        ComputeChecksums,
    ):
        notebook, resources = preprocessor().preprocess(notebook, resources)
    return notebook


def written(notebook: Any) -> str:
    """The notebook as the text of its file."""
    import nbformat

    return str(nbformat.writes(notebook)) + "\n"


def main(arguments: Sequence[str]) -> int:
    """`write FOLDER` writes every student notebook; `check FOLDER` fails if one is not what its source
    gives.
    """
    if len(arguments) != 2 or arguments[0] not in {"check", "write"}:
        print("usage: python -m labsupport.grading.release check|write FOLDER", file=sys.stderr)
        return 2
    labs, stale = Path(arguments[1]), []
    for lab in LABS:
        path, text = labs / lab.notebook, written(student_notebook(lab, labs))
        if arguments[0] == "write":
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
    for path in stale:
        print(f"{path} is not what its source gives; run: python -m labsupport.grading.release write {labs}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
