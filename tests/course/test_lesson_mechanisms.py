"""What a lesson asserts of a measurement fails when the mechanism it shows is switched off.

Each test takes a lesson's own cells, changes the one line that makes the mechanism work, and runs them until
an assertion fails: the one that stands below the measurement, and no other.
"""

from __future__ import annotations

from pathlib import Path

import jupytext
import pytest

LESSONS = Path(__file__).parents[2] / "lessons"


@pytest.fixture(autouse=True)
def in_the_folder_of_the_lessons(monkeypatch, tmp_path):
    monkeypatch.chdir(LESSONS)
    monkeypatch.setenv("LABSUPPORT_DATA", str(tmp_path))


def failing_assertion(lesson: str, *, off: tuple[str, str], without: tuple[str, ...] = ()) -> str:
    """The source of the first cell of which an assertion fails, with the text `off[0]` replaced by `off[1]`.

    Cells that contain a text of `without` are left out, to save time.
    """
    cells = [
        cell.source
        for cell in jupytext.read(LESSONS / "src" / f"{lesson}.py").cells
        if cell.cell_type == "code"
    ]
    assert sum(off[0] in source for source in cells) == 1, "the lesson no longer has the line to change"
    names: dict[str, object] = {"__name__": "__main__"}
    for source in cells:
        if any(text in source for text in without):
            continue
        try:
            exec(compile(source.replace(*off), lesson, "exec"), names)
        except AssertionError:
            return source
    return ""


DRAWING = ("with figure(", "quiz(", "explore_", "score(")


def test_without_streaming_lesson_00_fails_at_its_stream():
    off = ("stream: bool = True", "stream: bool = False")
    failed = failing_assertion("00_start", off=off, without=("exit_status", "sheet", *DRAWING))
    assert "len(pieces) > 5" in failed


def test_without_a_flipped_bit_lesson_01_fails_at_its_bits():
    off = ("(1 << bit)", "0")
    failed = failing_assertion("01_weights", off=off, without=("with figure(", "quiz(", "explore_"))
    assert "assert not unchanged[14]" in failed


def test_without_damage_to_the_file_lesson_01_fails_at_its_damage():
    off = ("0b0100_0000", "0")
    failed = failing_assertion("01_weights", off=off, without=("with figure(", "quiz("))
    assert "same_words < 0.5" in failed


def test_a_hopelessly_slow_copy_makes_lesson_01_fail_at_its_comparison():
    off = ("started = time.perf_counter()", "started = time.perf_counter() - 1e9")
    failed = failing_assertion("01_weights", off=off, without=("with figure(", "quiz("))
    assert "gpu_seconds_of_training" in failed
