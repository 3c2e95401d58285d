"""What a lesson asserts of a measurement fails when the mechanism it shows is switched off.

`SWITCHES` has an entry for every measured cell of every lesson. Each test takes the lesson's own cells,
changes the one text that makes the mechanism work, and runs them until an assertion fails: the one that
stands below that measurement, and no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jupytext
import pytest

LESSONS = Path(__file__).parents[2] / "lessons"
SHOWN_ONLY = ("with figure(", "quiz(", "explore_")
WITHOUT_DATASHEET = ("exit_status", "sheet", "bandwidth")


@dataclass(frozen=True)
class Switch:
    """A measured cell, known by a text of it, and the change of text that switches its mechanism off.

    Cells with a text of `without` are left out, to save time.
    """

    lesson: str
    cell: str
    on: str
    off: str
    without: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.lesson}: {self.cell}"


SWITCHES = (
    Switch("00_start", "exit_status =", '(["doctor"])', '(["models", "path", "no-such-model"])'),
    Switch(
        "00_start",
        "sheet = datasheet(",
        'sheet.measured("disk, cold").best * 1e9',
        "sheet.memory_bytes_per_second",
    ),
    Switch(
        "00_start",
        "model.generate(",
        'chat = [{"role": "user", "content": incident.prompt}]',
        'chat = [{"role": "user", "content": "What is a KV cache?"}]',
        WITHOUT_DATASHEET,
    ),
    Switch(
        "00_start",
        "pieces, seconds = ask(",
        "stream: bool = True",
        "stream: bool = False",
        WITHOUT_DATASHEET,
    ),
    Switch(
        "00_start",
        "stream_speed =",
        "bandwidth = sheet.memory_bytes_per_second",
        "bandwidth = sheet.memory_bytes_per_second / 1e6",
        ("exit_status",),
    ),
    Switch(
        "00_start",
        "Characters on the reader's screen",
        "halfway = (first_word + last_word) / 2",
        "halfway = last_word",
        WITHOUT_DATASHEET,
    ),
    Switch(
        "00_start",
        '"".join(nonsense))',
        'nonsense, _ = ask(server, "Who is on call tonight?")',
        "nonsense = []",
        WITHOUT_DATASHEET,
    ),
    Switch(
        "01_weights",
        "answer = tokenizer.decode(",
        "What is a KV cache?",
        "How many GB are the weights of a 7B model at 4 bits?",
    ),
    Switch("01_weights", "sureness, unchanged = zip(", "(1 << bit)", "0"),
    Switch("01_weights", "Sixteen bars", "return sure, bool(", "return 1.0, bool("),
    Switch(
        "01_weights",
        "copy_seconds =",
        "started = time.perf_counter()",
        "started = time.perf_counter() - 1e9",
    ),
)


@pytest.fixture(autouse=True)
def in_the_folder_of_the_lessons(monkeypatch, tmp_path):
    monkeypatch.chdir(LESSONS)
    monkeypatch.setenv("LABSUPPORT_DATA", str(tmp_path))


@cache
def code_cells(lesson: str) -> list:
    return [
        cell for cell in jupytext.read(LESSONS / "src" / f"{lesson}.py").cells if cell.cell_type == "code"
    ]


def measured_cells(lesson: str) -> list[int]:
    return [n for n, cell in enumerate(code_cells(lesson)) if "measured" in cell.metadata.get("tags", [])]


def failing_cell(lesson: str, on: str, off: str, without: tuple[str, ...] = ()) -> int | None:
    """The number of the first code cell of which an assertion fails, with the text `on` replaced by `off`."""
    sources = [cell.source for cell in code_cells(lesson)]
    assert sum(source.count(on) for source in sources) == 1, "the lesson no longer has the text to change"
    names: dict[str, object] = {"__name__": "__main__"}
    for number, source in enumerate(sources):
        if any(text in source for text in (*SHOWN_ONLY, *without)):
            continue
        try:
            exec(compile(source.replace(on, off), lesson, "exec"), names)
        except AssertionError:
            return number
    return None


def test_every_measured_cell_has_its_switch():
    lessons = sorted(path.stem for path in (LESSONS / "src").glob("[0-9][0-9]_*.py"))
    for lesson in lessons:
        switched = [
            number
            for switch in SWITCHES
            if switch.lesson == lesson
            for number in measured_cells(lesson)
            if switch.cell in code_cells(lesson)[number].source
        ]
        assert sorted(switched) == measured_cells(lesson), lesson
    assert {switch.lesson for switch in SWITCHES} <= set(lessons)


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
def test_with_its_mechanism_off_a_measured_cell_fails_the_assertion_below_it(switch):
    (measured,) = (
        n for n in measured_cells(switch.lesson) if switch.cell in code_cells(switch.lesson)[n].source
    )
    failed = failing_cell(switch.lesson, switch.on, switch.off, switch.without)
    assert failed == measured + 1


def test_without_damage_to_the_file_lesson_01_fails_at_its_damage():
    failed = failing_cell("01_weights", "0b0100_0000", "0")
    assert failed is not None
    assert "same_words < 0.5" in code_cells("01_weights")[failed].source
