"""Grade a class: find the submissions, grade each, write the report and the grade book."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from labsupport.errors import LabsupportError
from labsupport.grading.exercise import Lab
from labsupport.grading.feedback import as_json, score, write_report
from labsupport.grading.grade import FAILED, Result, draw_seed, grade_all
from labsupport.grading.gradebook import record, require_sources
from labsupport.grading.labs import LABS
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
    run if something is missing: submissions, a lab of that name, the labs' sources, a sandbox.
    """
    chosen = _chosen(labs)
    if out.resolve() == submissions.resolve() or out.resolve().is_relative_to(submissions.resolve()):
        raise LabsupportError(
            f"The report would be written among the submissions, in {out}.",
            remedy="name another folder with --out",
        )
    found = find(submissions, chosen)
    require_sources([submission.lab for submission in found], labs_folder)
    seed = draw_seed() if seed is None else seed
    results = grade_all(found, seed=seed, told=_tell)
    write_report(results, out, seed=seed)
    record(results, out, labs_folder)
    if print_json:
        print(json.dumps(as_json(results, seed=seed), indent=2))
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


def _tell(result: Result) -> None:
    notes = f"  {' '.join(result.notes)}" if result.notes else ""
    print(f"{result.student} {result.lab.name}: {result.status}, {score(result)}{notes}", file=sys.stderr)
