"""The course's own ledger: nothing in it is wrong, unused, unproved or missing, and its page is current."""

from __future__ import annotations

from pathlib import Path

from labsupport.notebook.claims import ledger_page, problems

ROOT = Path(__file__).parents[2]
LESSONS = ROOT / "lessons"


def test_every_number_of_the_lessons_is_proved_used_and_linked():
    labs = sorted((ROOT / "labs" / "src").glob("*.py"))
    assert [str(problem) for problem in problems(LESSONS, also_linking=labs)] == []


def test_the_ledgers_page_is_what_the_ledger_makes():
    assert (LESSONS / "CLAIMS.md").read_text(encoding="utf-8") == ledger_page(LESSONS), (
        "write it again: python -m labsupport.notebook.claims write lessons"
    )
