"""What graders and students read: a page per submission, one page and one CSV for the class.

The pages are whole in themselves: no script, nothing from the network, every word of a submission escaped,
so that opening one is safe whatever was handed in. Right means also that nobody can take a missing score
for a zero: where nothing was judged the score is empty and the status says why.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from labsupport.grading.grade import ABSENT, FAILED, STOPPED, UNREADABLE, Result
from labsupport.grading.instant_check import as_html, with_code

STATUS_IN_WORDS = {
    ABSENT: "Nothing was handed in. This is not a score of zero.",
    UNREADABLE: "The notebook cannot be read, so nothing was judged. This is not a score of zero.",
    FAILED: "The grader itself failed. This says nothing about the work: it has to be graded again.",
    STOPPED: "Some code had to be stopped. The points missing there are no judgement of its answers.",
}
COLUMNS = ("student", "lab", "status", "score", "max_score", "exercises", "notes", "seed")
STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;color:#1a1a1a;max-width:56rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}caption{text-align:left;font-weight:600}"
    "th,td{border-bottom:1px solid #bbb;padding:.3rem .8rem .3rem 0;text-align:left;vertical-align:top}"
    "td.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
    "pre{background:#f4f4f4;padding:.8rem;overflow-x:auto}code{background:#f4f4f4}"
    ".status{border-left:4px solid #b35806;padding:.2rem .8rem}summary{cursor:pointer;margin-top:.4rem}"
)


def page_path(result: Result) -> Path:
    """Where a submission's page lies in the report's folder."""
    return Path("feedback") / result.student / f"{result.lab.name}.html"


def write_report(results: Sequence[Result], out: Path, *, seed: int) -> None:
    """Write `index.html`, `scores.csv` and every submission's page under `out`."""
    for result in results:
        _write(out / page_path(result), submission_page(result, seed=seed))
    _write(out / "index.html", class_page(results, seed=seed))
    _write(out / "scores.csv", scores_csv(results, seed=seed))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def score(result: Result) -> str:
    """`18 of 21`, or a dash where nothing was judged."""
    return "–" if result.earned is None else f"{result.earned} of {result.lab.points}"


def submission_page(result: Result, *, seed: int) -> str:
    """The page that a student gets."""
    parts = [f"<p>Score: <strong>{score(result)}</strong> · status: {html.escape(result.status)}</p>"]
    if result.status in STATUS_IN_WORDS:
        parts.append(f'<p class="status">{STATUS_IN_WORDS[result.status]}</p>')
    if result.notes:
        parts.append("<h2>What happened</h2><ul>")
        parts += [f"<li>{with_code(note)}</li>" for note in result.notes]
        parts.append("</ul>")
    for exercise, verdict in zip(result.lab.exercises, result.verdicts, strict=bool(result.verdicts)):
        parts.append(f"<h2>{html.escape(exercise.title)}</h2>{as_html(verdict)}")
        source = handed_in_source(result.notebook or {}, exercise.name)
        if source is not None:
            parts.append(f"<details><summary>Your code</summary><pre>{html.escape(source)}</pre></details>")
    parts.append(f"<p><small>Inputs drawn from seed {seed}.</small></p>")
    return _page(f"{result.lab.name} · {result.student}", "".join(parts))


def class_page(results: Sequence[Result], *, seed: int) -> str:
    """The page that a teacher opens first."""
    rows = "".join(
        f'<tr><th scope="row"><a href="{_url(page_path(result))}">{html.escape(result.student)}</a></th>'
        f"<td>{html.escape(result.lab.name)}</td><td>{html.escape(result.status)}</td>"
        f'<td class="number">{score(result)}</td>'
        f"<td>{'<br>'.join(with_code(note) for note in result.notes)}</td></tr>"
        for result in results
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Student", "Lab", "Status", "Score", "Notes"))
    table = f"<table><caption>{len(results)} submissions</caption><tr>{heads}</tr>{rows}</table>"
    words = "".join(
        f"<li><strong>{status}</strong>: {meaning}</li>" for status, meaning in STATUS_IN_WORDS.items()
    )
    return _page("Grades", f"{table}<ul>{words}</ul><p><small>Inputs drawn from seed {seed}.</small></p>")


def _url(path: Path) -> str:
    from urllib.parse import quote

    return html.escape(quote(str(path), errors="replace"))


def _page(title: str, body: str) -> str:
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>{STYLE}</style></head><body><main><h1>{html.escape(title)}</h1>{body}</main></body></html>\n"
    )


def scores_csv(results: Iterable[Result], *, seed: int) -> str:
    """One row per submission; `score` is empty where nothing was judged."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for result in results:
        earned = "" if result.earned is None else result.earned
        exercises = " ".join(f"{one.exercise}={one.earned}/{one.points}" for one in result.verdicts)
        row = (result.student, result.lab.name, result.status, earned, result.lab.points, exercises)
        writer.writerow([_cell(value) for value in (*row, " ".join(result.notes), seed)])
    return text.getvalue()


def _cell(value: object) -> object:
    """Text that a spreadsheet would take for a formula is marked as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in set("=+-@\t\r") else value


def as_json(results: Iterable[Result], *, seed: int) -> dict[str, Any]:
    """The results as plain data."""
    return {
        "seed": seed,
        "results": [
            {
                "student": result.student,
                "lab": result.lab.name,
                "status": result.status,
                "score": result.earned,
                "max_score": result.lab.points,
                "notes": list(result.notes),
                "exercises": [
                    {
                        "name": verdict.exercise,
                        "outcome": verdict.outcome,
                        "score": verdict.earned,
                        "max_score": verdict.points,
                        "message": verdict.message,
                    }
                    for verdict in result.verdicts
                ],
            }
            for result in results
        ],
    }


def handed_in_source(notebook: dict[str, Any], name: str) -> str | None:
    """The source of the first code cell that stands for the exercise, by nbgrader's id or the cell's own."""
    for cell in notebook.get("cells", []):
        if grade_id(cell) == name and cell.get("cell_type") == "code":
            source = cell.get("source", "")
            return "".join(source) if isinstance(source, list) else source
    return None


def grade_id(cell: dict[str, Any]) -> str:
    """The name under which a cell was released, as far as the student left it."""
    metadata = cell.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    named = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    return str(named or cell.get("id") or "")
