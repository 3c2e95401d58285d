"""The four proofs of a grader, for every exercise of every lab, and the way from a lab's source to a student.

An exercise gets these proofs by having an entry in `tests/course/answers/labNN.py`.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from labsupport.grading.exercise import Exercise, Lab
from labsupport.grading.grade import draw_seed, grade
from labsupport.grading.instant_check import ask
from labsupport.grading.judge import Verdict, judge
from labsupport.grading.labs import LABS, exercises
from labsupport.grading.release import solved_notebook, student_notebook, written
from labsupport.grading.submission import Submission
from tests.course.answers import Answers, Wrong

LABS_FOLDER = Path(__file__).parents[2] / "labs"
SEEDS = (0, 1, 2026)
ANSWERS: dict[str, Answers] = {
    name: answers
    for lab in LABS
    for name, answers in importlib.import_module(f"tests.course.answers.{lab.name}").ANSWERS.items()
}
RIGHT = [(name, function) for name, answers in ANSWERS.items() for function in answers.right]
WRONG = [(name, wrong) for name, answers in ANSWERS.items() for wrong in (*answers.wrong, *answers.blind)]


def functions_of(notebook: Any) -> dict[str, Any]:
    """Run the cells that define things (not the ones that check or show), and give back what they define."""
    namespace: dict[str, Any] = {}
    for cell in notebook.cells:
        ours = cell.cell_type == "code" and not cell.metadata.get("nbgrader", {}).get("grade")
        if ours and not cell.source.startswith(("POCKET", "header =")):
            exec(compile(cell.source, cell["id"], "exec"), namespace)
    return namespace


def judged(name: str, function: Any, seed: int) -> Verdict:
    exercise = exercises()[name]
    return judge(exercise, ask(exercise, function, seed))


@pytest.fixture(scope="module", params=LABS, ids=lambda lab: lab.name)
def lab(request: pytest.FixtureRequest) -> Lab:
    return request.param


@pytest.fixture(params=exercises().values(), ids=lambda exercise: exercise.name)
def exercise(request: pytest.FixtureRequest) -> Exercise:
    return request.param


def lab_of(exercise: Exercise) -> Lab:
    return next(lab for lab in LABS if exercise in lab.exercises)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_untouched_stub_scores_nothing(exercise, seed):
    stub = functions_of(student_notebook(lab_of(exercise), LABS_FOLDER))[exercise.name]
    verdict = judged(exercise.name, stub, seed)
    assert verdict.earned == 0
    assert verdict.outcome == "not written"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_scores_full(exercise, seed):
    reference = functions_of(solved_notebook(lab_of(exercise), LABS_FOLDER))[exercise.name]
    verdict = judged(exercise.name, reference, seed)
    assert verdict.earned == verdict.points, verdict.message


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "function"), RIGHT, ids=lambda value: getattr(value, "__name__", value))
def test_a_right_answer_written_differently_scores_full(name, function, seed):
    verdict = judged(name, function, seed)
    assert verdict.earned == verdict.points, verdict.message


def wrong_id(value: Any) -> str:
    return value.function.__name__ if isinstance(value, Wrong) else value


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "wrong"), WRONG, ids=wrong_id)
def test_a_wrong_answer_is_refused_with_the_message_meant_for_it(name, wrong, seed):
    verdict = judged(name, wrong.function, seed)
    assert verdict.earned < verdict.points
    assert verdict.recognised, f"no mistake was recognised: {verdict.message}"
    assert set(verdict.recognised) == set(wrong.mistakes or verdict.recognised), verdict.message
    assert wrong.says in verdict.message


def test_every_exercise_has_its_answers_listed(exercise):
    answers = ANSWERS[exercise.name]
    assert len(answers.right) >= 1
    assert len(answers.wrong) >= 4
    assert len(answers.blind) >= 2
    assert all(wrong.mistakes or wrong.says for wrong in (*answers.wrong, *answers.blind))


def test_an_answer_that_is_always_the_same_earns_nothing(exercise):
    for constant in (0, 1, None, {}, "open weights", {"openness": "open weights"}):
        verdict = judged(exercise.name, lambda *_, answer=constant: answer, 0)
        assert verdict.earned == 0, f"returning {constant!r} earned {verdict.earned}"


def test_stub_and_reference_have_the_same_signatures(lab):
    stubs = functions_of(student_notebook(lab, LABS_FOLDER))
    references = functions_of(solved_notebook(lab, LABS_FOLDER))
    for exercise in lab.exercises:
        assert inspect.signature(stubs[exercise.name]) == inspect.signature(references[exercise.name])
        assert stubs[exercise.name].__doc__ == references[exercise.name].__doc__


def test_the_points_on_the_page_are_the_points_given(lab):
    cells = {cell["id"]: cell for cell in student_notebook(lab, LABS_FOLDER).cells}
    for exercise in lab.exercises:
        assert cells[f"check_{exercise.name}"].metadata.nbgrader.points == exercise.points
        assert cells[f"check_{exercise.name}"].source == f'check("{exercise.name}")'


@pytest.mark.sandbox
@pytest.mark.parametrize(("build", "share"), [(solved_notebook, 1), (student_notebook, 0)])
def test_solved_and_untouched_labs_score_full_and_nothing_through_the_sandbox(lab, build, share, tmp_path):
    path = tmp_path / lab.notebook
    path.write_text(written(build(lab, LABS_FOLDER)), encoding="utf-8")
    result = grade(Submission("somebody", lab, path), seed=draw_seed())
    assert (result.status, result.notes) == ("graded", ())
    assert result.earned == share * lab.points


def test_the_student_notebook_is_what_its_source_gives_and_holds_no_solution(lab):
    text = (LABS_FOLDER / lab.notebook).read_text(encoding="utf-8")
    assert text == written(student_notebook(lab, LABS_FOLDER))
    assert "SOLUTION" not in text
    assert text.count("raise NotImplementedError()") >= len(lab.exercises)
