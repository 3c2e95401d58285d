"""The guard goes off: no notebook passes strict nbval without having been compared."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from labsupport.notebook.build import BuildError, build, converted
from tests.course.notebook_guard import complaints

SOURCE = """\
# %% [markdown]
# # A lesson

# %%
total = sum(range(10))
print(total)

# %% tags=["measured"]
import time
seconds = time.perf_counter()
print(seconds)

# %%
assert seconds > 0
"""


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course") / "lessons"
    (folder / "src").mkdir(parents=True)
    source = folder / "src" / "00_probe.py"
    source.write_text(SOURCE)
    build(source, folder / "00_probe.ipynb")
    return folder / "00_probe.ipynb"


@pytest.fixture
def notebook(lesson):
    return nbformat.read(lesson, as_version=4)


@pytest.fixture
def source(lesson):
    return converted(lesson.parent / "src" / "00_probe.py")


def strict_nbval(notebook: Path) -> subprocess.CompletedProcess[str]:
    words = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir",
        str(notebook.parent),
    ]
    options = ["--nbval", "--nbval-current-env", str(notebook)]
    return subprocess.run([sys.executable, *words, *options], capture_output=True, text=True)


def changed(source_text: str, folder: Path) -> tuple:
    path = folder / "changed.py"
    path.write_text(source_text)
    original = converted(path)
    executed = copy.deepcopy(original)
    for count, cell in enumerate((cell for cell in executed.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    return executed, original


def test_a_built_notebook_has_no_complaint_and_passes_strict_nbval(lesson, notebook, source):
    assert complaints(notebook, source) == []
    assert strict_nbval(lesson).returncode == 0


def test_a_changed_output_fails_strict_nbval(lesson, notebook, tmp_path):
    notebook.cells[1].outputs[0].text = "46\n"
    nbformat.write(notebook, tmp_path / "wrong.ipynb")
    assert strict_nbval(tmp_path / "wrong.ipynb").returncode == 1


def test_a_stripped_notebook_passes_nbval_and_is_refused_by_the_guard(notebook, source, tmp_path):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, tmp_path / "stripped.ipynb")
    assert strict_nbval(tmp_path / "stripped.ipynb").returncode == 0
    assert "execution counts are [None, None, None]" in complaints(notebook, source)[0]


def test_cells_that_were_run_out_of_order_are_refused(notebook, source):
    notebook.cells[1].execution_count, notebook.cells[2].execution_count = 2, 1
    assert complaints(notebook, source)


@pytest.mark.parametrize("drift", ["source", "id", "tags", "missing cell", "metadata"])
def test_a_notebook_that_drifted_from_its_source_is_refused(notebook, source, drift):
    if drift == "source":
        notebook.cells[0].source += "!"
    elif drift == "id":
        notebook.cells[0]["id"] = "elsewhere"
    elif drift == "tags":
        notebook.cells[1].metadata["tags"] = ["nbval-ignore-output"]
    elif drift == "missing cell":
        del notebook.cells[-1]
    else:
        notebook.metadata["kernelspec"]["display_name"] = "My own Python"
    assert complaints(notebook, source)


@pytest.mark.parametrize(
    "assertion",
    [
        *("print(seconds)", "assert True", "# assert seconds > 0", "assert seconds == seconds"),
        *("assert seconds > 0 or True", "assert len([1])", "assert not (seconds != seconds)"),
    ],
)
def test_a_measured_cell_without_an_assertion_after_it_is_refused(tmp_path, assertion):
    notebook, source = changed(SOURCE.replace("assert seconds > 0", assertion), tmp_path)
    assert "not followed by one that asserts" in complaints(notebook, source)[0]


@pytest.mark.parametrize(
    "escape", ["# NBVAL_IGNORE_OUTPUT", "# NBVAL_SKIP", "# PYTEST_VALIDATE_IGNORE_OUTPUT"]
)
def test_no_other_way_out_of_comparison_is_allowed(tmp_path, escape):
    notebook, source = changed(SOURCE.replace("total =", f"{escape}\ntotal ="), tmp_path)
    assert "escapes comparison" in complaints(notebook, source)[0]


def test_building_twice_changes_nothing_but_what_is_measured(lesson, notebook):
    build(lesson.parent / "src" / "00_probe.py", lesson)
    again = nbformat.read(lesson, as_version=4)
    for cell in (notebook.cells[2], again.cells[2]):
        cell.outputs = []
    assert again == notebook


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import warnings; warnings.warn('old')", "prints a warning"),
        ("from pathlib import Path; print(Path.home())", "something of this computer"),
    ],
)
def test_a_lesson_that_cannot_be_published_is_not_written(tmp_path, cell, said):
    source = tmp_path / "00_bad.py"
    source.write_text(f"# %%\n{cell}\n")
    with pytest.raises(BuildError, match=said):
        build(source, tmp_path / "00_bad.ipynb")
    assert not (tmp_path / "00_bad.ipynb").exists()


def test_a_measured_cell_loses_the_builders_paths(tmp_path):
    source = tmp_path / "00_path.py"
    source.write_text('# %% tags=["measured"]\nfrom pathlib import Path\nprint(Path.home() / "model")\n')
    build(source, tmp_path / "00_path.ipynb")
    assert nbformat.read(tmp_path / "00_path.ipynb", as_version=4).cells[0].outputs[0].text == "…/model\n"


def test_a_lesson_that_outlasts_a_readers_patience_is_refused(tmp_path):
    from labsupport.notebook.build import execute

    source = tmp_path / "00_slow.py"
    source.write_text("# %%\nimport time; time.sleep(3)\n")
    with pytest.raises(BuildError, match="failed"):
        execute(converted(source), folder=tmp_path, seconds_at_most=1)
