"""Grade a class: find the submissions, grade each, write the report and the grade book."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import SubprocessError

from labsupport.errors import LabsupportError
from labsupport.grading.exercise import Lab
from labsupport.grading.feedback import as_json, score, write_report
from labsupport.grading.grade import FAILED, Result, draw_seed, grade_all
from labsupport.grading.gradebook import record, require_sources
from labsupport.grading.labs import LABS
from labsupport.grading.sandbox import require_sandbox
from labsupport.grading.submission import find


def grade_class(
    submissions: Path,
    out: Path,
    *,
    labs_folder: Path,
    labs: Sequence[str] | None = None,
    seed: int | None = None,
    print_json: bool = False,
) -> int:
    """Grade what is in `submissions` and write everything under `out`.

    Returns 0, or 1 if the grader itself failed on a submission. Raises `LabsupportError` before anything is
    run if something is missing: submissions, a lab of that name, the labs' sources, a sandbox, a folder that
    can be written; and after it if the disk is full by then, with the seed that gives the same scores again.
    """
    chosen = _chosen(labs)
    if out.resolve() == submissions.resolve() or out.resolve().is_relative_to(submissions.resolve()):
        raise LabsupportError(
            f"The report would be written among the submissions, in {out}.",
            remedy="name another folder with --out",
        )
    found = find(submissions, chosen)
    require_sources([submission.lab for submission in found], labs_folder)
    require_sandbox()
    _require_writable(out)
    seed = draw_seed() if seed is None else seed
    results = grade_all(found, seed=seed, told=_tell)
    if print_json:
        print(json.dumps(as_json(results, seed=seed), indent=2))
    with _failure_explained(out, seed):
        write_report(results, out, seed=seed)
        record(results, out, labs_folder)
    print(f"{len(results)} submissions, seed {seed}. Report: {out / 'index.html'}", file=sys.stderr)
    return 1 if any(result.status == FAILED for result in results) else 0


def _chosen(names: Sequence[str] | None) -> tuple[Lab, ...]:
    if not names:
        return LABS
    known = {lab.name: lab for lab in LABS}
    for name in names:
        if name not in known:
            raise LabsupportError(f"There is no lab {name!r}.", allowed=", ".join(known))
    return tuple(known[name] for name in names)


def _require_writable(out: Path) -> None:
    """Write something where the report will be: a class takes long, and should not be graded for nothing."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as probe:
            probe.write(b"x")
    except OSError as error:
        raise LabsupportError(
            f"The report cannot be written to {out}: {error.strerror or error}. Nothing was graded.",
            remedy="name another folder with --out, or free some space",
        ) from None


@contextmanager
def _failure_explained(out: Path, seed: int) -> Iterator[None]:
    """Say what to do when the report cannot be written after all; the grade book has errors of its own."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OSError, SQLAlchemyError, SubprocessError) as error:
        raise LabsupportError(
            f"The report in {out} is not whole: {error}",
            remedy=f"free some space or name another folder with --out, and grade again with --seed {seed}: "
            "the same inputs give the same scores",
        ) from None


def _tell(result: Result) -> None:
    notes = f"  {' '.join(result.notes)}" if result.notes else ""
    print(f"{result.student} {result.lab.name}: {result.status}, {score(result)}{notes}", file=sys.stderr)
