"""Grading a class: each submission gets one result to trust, in the report and in nbgrader's grade book."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labsupport.cli import main
from labsupport.errors import LabsupportError
from labsupport.grading.classroom import grade_class
from labsupport.grading.labs import LABS
from labsupport.grading.release import student_notebook, written
from labsupport.grading.submission import find
from tests.grading.notebooks import LABS_FOLDER, SOLVED, handed_in, notebook

LAB = LABS[0]
BIN = Path(sys.executable).parent
GQA_FORGOTTEN = """def count_parameters(config):
    return right_count(config | {"num_key_value_heads": config["num_attention_heads"]})"""
RIGHT_COUNT = next(cell["source"] for cell in SOLVED["cells"] if cell["id"] == "count_parameters")
SCRIPT = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A class in which everything goes wrong that can, beside two who did the lab."""
    folder, out = tmp_path_factory.mktemp("submitted"), tmp_path_factory.mktemp("report")
    handed_in(folder, "ada", notebook())
    almost = notebook(
        first=RIGHT_COUNT.replace("count_parameters", "right_count"), count_parameters=GQA_FORGOTTEN
    )
    handed_in(folder, "bob", almost)
    handed_in(folder, "blank", written(student_notebook(LAB, LABS_FOLDER)))
    handed_in(folder, "not json", '{"cells": [')
    handed_in(folder, "not a notebook", '{"worksheets": []}')
    handed_in(folder, "deep", "[" * 100_000)
    handed_in(folder, "binary", "x").write_bytes(b"\xff\xfe\x00")
    handed_in(folder, "=1+1", notebook(quantized_bytes=f"# {SCRIPT}"))
    (folder / "absent").mkdir()
    link = handed_in(folder, "copycat", "x")
    link.unlink()
    link.symlink_to(folder / "ada" / LAB.name / LAB.notebook)
    fifo = handed_in(folder, "pipe", "x")
    fifo.unlink()
    os.mkfifo(fifo)
    assert grade_class(folder, out, labs_folder=LABS_FOLDER, seed=11) == 0
    return out


def rows(report: Path) -> dict[str, dict[str, str]]:
    with (report / "scores.csv").open(encoding="utf-8", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


@pytest.mark.sandbox
def test_every_student_gets_a_row_a_status_and_a_page(report):
    statuses = {student: (row["status"], row["score"]) for student, row in rows(report).items()}
    assert statuses == {
        "ada": ("graded", "21"),
        "bob": ("graded", "18"),
        "blank": ("graded", "0"),
        "'=1+1": ("graded", "16"),
        "not json": ("unreadable", ""),
        "not a notebook": ("unreadable", ""),
        "deep": ("unreadable", ""),
        "binary": ("unreadable", ""),
        "copycat": ("unreadable", ""),
        "pipe": ("unreadable", ""),
        "absent": ("absent", ""),
    }
    pages = {path.parent.name for path in report.glob("feedback/*/lab01.html")}
    assert pages == {"=1+1", *(student for student in statuses if student != "'=1+1")}


@pytest.mark.sandbox
def test_a_real_zero_reads_differently_from_no_score(report):
    zero = (report / "feedback/blank/lab01.html").read_text()
    nothing = (report / "feedback/not json/lab01.html").read_text()
    assert "Score: <strong>0 of 21</strong>" in zero
    assert "Nothing is written here yet" in zero
    assert "This is not a score of zero" in nothing
    assert "it is not JSON" in nothing


@pytest.mark.sandbox
def test_feedback_names_the_mistake_and_never_the_solution(report):
    page = (report / "feedback/bob/lab01.html").read_text()
    assert "did you count query heads where there are key/value heads?" in page
    assert "5 of 6 points" in page
    assert "kv_heads = config.get" not in (report / "feedback/blank/lab01.html").read_text()


@pytest.mark.sandbox
def test_nothing_that_a_student_writes_runs_in_the_reader_of_the_report(report):
    for page in report.rglob("*.html"):
        text = page.read_text()
        assert "<script" not in text
        assert "http" not in text.replace("http-equiv", "")
    assert "&lt;script&gt;" in (report / "feedback/=1+1/lab01.html").read_text()


@pytest.mark.sandbox
def test_nbgrader_goes_on_from_the_report(report):
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    for command in (["export"], ["generate_feedback", LAB.name]):
        ran = subprocess.run(
            ["nbgrader", *command], cwd=report, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
    with (report / "grades.csv").open(newline="") as file:
        scores = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert scores == {"ada": 21, "bob": 18, "blank": 0, "=1+1": 16}
    page = (report / "feedback/bob/lab01/lab01_weights.html").read_text()
    assert "Score: 5.0 / 6.0" in page
    assert "did you count query heads where there are key/value heads?" in page


@pytest.mark.sandbox
def test_the_same_seed_gives_the_same_report(report, tmp_path):
    folder = tmp_path / "submitted"
    handed_in(folder, "ada", notebook())
    for out in (tmp_path / "one", tmp_path / "two"):
        grade_class(folder, out, labs_folder=LABS_FOLDER, seed=4)
    assert (tmp_path / "one/scores.csv").read_bytes() == (tmp_path / "two/scores.csv").read_bytes()


@pytest.mark.sandbox
def test_a_learner_grades_one_notebook_of_their_own(tmp_path, capsys):
    path = tmp_path / LAB.notebook
    path.write_text(json.dumps(notebook()))
    status = main(["grade", str(path), "--out", str(tmp_path / "out"), "--labs", str(LABS_FOLDER), "--json"])
    assert status == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["status"], result["score"], result["max_score"]) == ("graded", 21, 21)


def test_without_a_sandbox_nothing_is_run(tmp_path, monkeypatch, capsys):
    handed_in(tmp_path / "submitted", "ada", notebook(first="open('/tmp/was_run', 'w')"))
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = [
        "grade",
        str(tmp_path / "submitted"),
        "--out",
        str(tmp_path / "out"),
        "--labs",
        str(LABS_FOLDER),
    ]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "in a sandbox only" in said
    assert "apt-get install bubblewrap" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("submissions", "out", "says"),
    [
        ("nowhere", "out", "There is no folder of submissions"),
        ("empty", "out", "holds no student's folder"),
        ("class", "class/report", "among the submissions"),
        ("class/ada/lab01/lab01_weights.txt", "out", "There is no folder of submissions"),
    ],
)
def test_bad_folders_are_refused_before_anything_is_run(tmp_path, submissions, out, says):
    (tmp_path / "empty").mkdir()
    handed_in(tmp_path / "class", "ada", notebook())
    with pytest.raises(LabsupportError, match=says):
        grade_class(tmp_path / submissions, tmp_path / out, labs_folder=LABS_FOLDER)


@pytest.fixture
def class_of_one(tmp_path):
    handed_in(tmp_path / "class", "ada", notebook())
    return ["grade", str(tmp_path / "class"), "--labs", str(LABS_FOLDER), "--seed", "4"]


@pytest.mark.sandbox
@pytest.mark.parametrize("place", ["/proc/nowhere/out", "file", "file/out"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_graded(
    class_of_one, tmp_path, capsys, place
):
    (tmp_path / "file").write_text("in the way")
    assert main([*class_of_one, "--out", str(tmp_path / place)]) == 1
    said = capsys.readouterr().err
    assert f"The report cannot be written to {tmp_path / place}" in said
    assert "Nothing was graded" in said
    assert "ada" not in said
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.sandbox
@pytest.mark.parametrize("file", ["index.html", "scores.csv", "gradebook.db"])
def test_a_disk_that_fills_up_loses_no_result(class_of_one, tmp_path, capsys, file):
    out = tmp_path / "out"
    out.mkdir()
    (out / file).symlink_to("/dev/full")  # every write fails with "no space left"
    assert main([*class_of_one, "--out", str(out), "--json"]) == 1
    said = capsys.readouterr()
    assert f"The report in {out} is not whole" in said.err
    assert "grade again with --seed 4" in said.err
    assert json.loads(said.out)["results"][0]["score"] == 21


def test_an_unknown_lab_and_missing_sources_are_refused(tmp_path):
    handed_in(tmp_path / "class", "ada", notebook())
    with pytest.raises(LabsupportError, match="There is no lab 'lab99'"):
        grade_class(tmp_path / "class", tmp_path / "out", labs_folder=LABS_FOLDER, labs=["lab99"])
    with pytest.raises(LabsupportError, match="source of lab01 is not at"):
        grade_class(tmp_path / "class", tmp_path / "out", labs_folder=tmp_path)


def test_a_misnamed_notebook_is_pointed_out(tmp_path):
    path = handed_in(tmp_path, "ada", notebook())
    path.rename(path.with_name("lab01_weights (1).ipynb"))
    (found,) = find(tmp_path, LABS)
    assert found.path is None
    assert "Found instead: lab01_weights (1).ipynb" in found.lack
