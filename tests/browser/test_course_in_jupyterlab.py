"""The course as its reader uses it: a real JupyterLab, a real browser, a mouse and a keyboard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from jupyterlab_driver import Lab, Notebook, browser_page, copy_course, running_lab

from labsupport.grading.labs import exercises

pytestmark = pytest.mark.browser
EXERCISE = "quantized_bytes"
WRONG = """\
def quantized_bytes(shape, bits, group, scale_bits, offset_bits):
    if len(shape) == 1:
        return 2 * shape[0]
    rows, columns = shape
    return -(-rows * columns * bits // 8)"""
MISTAKE = "scales forgotten"
RIGHT = """\
def quantized_bytes(shape, bits, group, scale_bits, offset_bits):
    if len(shape) == 1:
        return 2 * shape[0]
    rows, columns = shape
    groups = rows * -(-columns // group)
    return -(-(rows * columns * bits + groups * (scale_bits + offset_bits)) // 8)"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(copy_course(tmp_path_factory.mktemp("course"))) as running:
        yield running


@pytest.mark.slow
def test_lesson_01_runs_from_top_to_bottom_and_its_figure_follows_the_slider(lab: Lab) -> None:
    with browser_page() as page:
        lesson = Notebook(page, lab, "lessons/01_weights.ipynb")
        lesson.run_all()

        assert lesson.errors() == []
        code = [cell for cell in lesson.cells() if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))

        explorer = lesson.find_cell("explore_model_bytes(")
        before = lesson.wait_for_other_picture(explorer, [])
        said = lesson.text_of(explorer)
        lesson.drag(lesson.cell(explorer).locator(".noUi-handle").first, pixels=40)
        after = lesson.wait_for_other_picture(explorer, before)

        assert len(before) == len(after) == 1
        assert lesson.text_of(explorer) != said  # the number beside the slider moved too
        assert lesson.notifications() == []  # nothing lies over the text


@pytest.mark.slow
def test_lab_01_teaches_after_a_wrong_answer_and_passes_a_right_one(lab: Lab) -> None:
    (message,) = (mistake.says for mistake in exercises()[EXERCISE].mistakes if mistake.name == MISTAKE)

    with browser_page() as page:
        notebook = Notebook(page, lab, "labs/lab01_weights.ipynb")
        exercise = notebook.find_cell(f"def {EXERCISE}(")
        check = notebook.find_cell(f'check("{EXERCISE}")')
        for index in range(exercise):
            if (
                notebook.cells()[index]["cell_type"] == "code"
                and "import" in notebook.cells()[index]["source"]
            ):
                notebook.run_cell(index)

        notebook.run_cell(exercise)
        notebook.run_cell(check)
        assert "0 of 5 points" in notebook.text_of(check)

        notebook.set_source(exercise, WRONG)
        notebook.run_cell(exercise)
        notebook.run_cell(check)
        answer = notebook.text_of(check)
        assert "Right ·" not in answer
        assert message.replace("`", "") in answer

        notebook.set_source(exercise, RIGHT)
        notebook.run_cell(exercise)
        notebook.run_cell(check)
        answer = notebook.text_of(check)
        assert f"Right · {EXERCISE}" in answer
        assert "5 of 5 points" in answer
        assert notebook.errors() == []
