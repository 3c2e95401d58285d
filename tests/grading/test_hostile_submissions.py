"""Whatever a submission does: one clear line, the rest of it is graded, and nothing else is affected."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
import time
from pathlib import Path

import pytest

from labsupport.grading import sandbox
from labsupport.grading.feedback import write_report
from labsupport.grading.grade import GRADED, STOPPED, Result, grade, grade_all
from labsupport.grading.submission import Submission
from tests.grading.notebooks import LAB, LABS_FOLDER, handed_in, notebook

pytestmark = pytest.mark.sandbox
FULL = LAB.points


@pytest.fixture
def graded(tmp_path):
    def run(content) -> Result:
        path = handed_in(tmp_path, "student", content)
        return grade(Submission("student", LAB, path), seed=7)

    return run


def test_the_solved_lab_scores_full_and_says_nothing(graded):
    result = graded(notebook())
    assert (result.status, result.earned, result.notes) == (GRADED, FULL, ())


# A cell of a full solution, and the one line that the report must have about it.
HOSTILE_CELLS = {
    "loops for ever": ("while True: pass", "still running after 4 s, stopped"),
    "loops for ever and will not be interrupted": (
        "while True:\n    try: sum(range(10**7))\n    except BaseException: pass",
        "and was stopped. It was left out",
    ),
    "prints for ever": ("while True: print('x' * 100_000)", "printed more than 1 MiB and was stopped"),
    "prints a gigabyte at once": (
        "import os\nfor _ in range(1000): os.write(1, b'x' * 10**6)",
        "printed more than 1 MiB and was stopped",
    ),
    "deletes the course": (
        "import shutil, labsupport, pathlib\nshutil.rmtree(pathlib.Path(labsupport.__file__).parent)",
        "raised OSError: [Errno 30] Read-only file system",
    ),
    "reads the solutions": (
        f"open({str(LAB.source(Path('labs').resolve()))!r})",
        "raised FileNotFoundError: [Errno 2] No such file or directory",
    ),
    "reads the password file": ("open('/etc/passwd')", "raised FileNotFoundError"),
    "imports the references": ("import labsupport.grading.exercises", "raised ModuleNotFoundError"),
    "imports the arithmetic that the lab asks for": (
        "import labsupport.anatomy",
        "raised ImportError: this part of labsupport is closed while the lab is graded",
    ),
    "forks": (
        "import os\nwhile True: os.fork()",
        "raised PermissionError: [Errno 1] Operation not permitted",
    ),
    "starts a program": ("import subprocess\nsubprocess.run(['true'])", "raised PermissionError"),
    "takes all memory at once": ("x = bytearray(10**11)", "raised MemoryError"),
    "takes all memory bit by bit": (
        "import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 10**8))",
        "raised OSError: [Errno 12] Cannot allocate memory. It was left out",
    ),
    "takes memory that no limit counts": ("import os\nos.memfd_create('x')", "raised PermissionError"),
    "fills the disk": (
        "for n in range(9): open(f'{n}', 'wb').write(bytes(10**7))",
        "raised OSError: [Errno 28] No space left on device",
    ),
    "opens the network": (
        "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)",
        "raised ConnectionRefusedError",
    ),
    "opens the internet": (
        "import socket\nsocket.create_connection(('192.0.2.1', 80), 1)",
        "raised OSError: [Errno 101] Network is unreachable",
    ),
    "leaves at once": ("import os\nos._exit(0)", "ended the Python process (exit status 0). It was left out"),
    "kills its process": (
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        "was killed for using too much memory or processor time, or by itself. It was left out",
    ),
    "crashes the interpreter": (
        "import ctypes\nctypes.string_at(0)",
        "ended the Python process (exit status 139). It was left out",
    ),
    "writes into the grader's channel": (
        "import os\nfor fd in range(3, 60):\n    try: os.write(fd, b'nonsense\\n')\n    except OSError: pass",
        "wrote into the grader's own channel and was stopped. It was left out",
    ),
    "hangs up on the grader": (
        "import os\nos.closerange(3, 60)\nimport time\ntime.sleep(60)",
        "was left out",
    ),
}


@pytest.mark.parametrize("what", HOSTILE_CELLS)
def test_a_hostile_cell_costs_only_itself(graded, what):
    code, line = HOSTILE_CELLS[what]
    result = graded(notebook(first=code))
    assert result.earned == FULL, result.notes
    assert result.status == GRADED
    (note,) = result.notes
    assert line in note
    assert note.startswith("Cell ")


# Deletes whatever it can reach, and counts. Outside a sandbox it refuses: `bwrap` is process 1 inside, and
# what is not the test's own must be read-only already.
DELETE_EVERYTHING = """
import os
from pathlib import Path

precious = {precious!r}
in_sandbox = Path("/proc/1/comm").read_text().strip() == "bwrap" and os.getcwd() == "/tmp/work"
if not in_sandbox or any(os.access(path, os.W_OK) for path in precious):
    raise SystemExit("not in the sandbox, nothing was deleted")

Path("mine/deep").mkdir(parents=True)
Path("mine/deep/notes.txt").write_text("of no use to anybody")
deleted, refused = set(), set()
for top in [os.path.expanduser("~"), os.getcwd(), *{targets!r}, "/"]:
    for folder, folders, files in os.walk(top, topdown=False):
        for name in files + folders:
            path = os.path.join(folder, name)
            for delete in (os.unlink, os.rmdir):
                try:
                    delete(path)
                    deleted.add(path)
                    break
                except OSError:
                    refused.add(path)
refused -= deleted
seen = [path for path in refused if path.startswith({package!r})]
raise RuntimeError(f"{{len(deleted)}} deleted, {{len(seen)}} of the course refused")
"""


def contents(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_a_cell_that_deletes_all_it_can_reach_deletes_nothing_of_anybodys(tmp_path, monkeypatch):
    # Given a copy in the place of the course, so that a sandbox that is broken loses nothing else
    course = tmp_path / "course" / "labsupport"
    shutil.copytree(sandbox.PACKAGE, course, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sandbox, "PACKAGE", course)
    monkeypatch.setattr(sandbox, "INSIDE", course / "grading" / "inside")
    # and a student who deletes everything, beside one who did the lab, and a report of last week
    submitted, out = tmp_path / "submitted", tmp_path / "report"
    cell = DELETE_EVERYTHING.format(
        precious=["/", "/usr", sys.prefix, str(LABS_FOLDER.parent / "Makefile")],
        targets=[str(submitted / "eve"), str(submitted), str(out), str(LABS_FOLDER), str(course)],
        package=str(course),
    )
    patient = dataclasses.replace(
        LAB, limits=dataclasses.replace(LAB.limits, seconds_per_cell=120, seconds_total=300)
    )
    paths = {
        "eve": handed_in(submitted, "eve", notebook(first=cell)),
        "ada": handed_in(submitted, "ada", notebook()),
    }
    submissions = [Submission(student, patient, path) for student, path in paths.items()]
    write_report(grade_all(submissions[1:], seed=6), out, seed=6)
    before = contents(tmp_path, LABS_FOLDER)
    # When both are graded
    eve, ada = grade_all(submissions, seed=7)
    # Then the cell found the course and could delete what was its own, and nothing else
    (note,) = eve.notes
    found = re.search(r"RuntimeError: (\d+) deleted, (\d+) of the course refused", note)
    assert found, note
    assert int(found[1]) >= 3
    assert int(found[2]) > 50
    assert contents(tmp_path, LABS_FOLDER) == before
    assert (eve.earned, ada.earned, ada.notes) == (FULL, FULL, ())


# An exercise answered by hostile code: its status, and the message that its author gets.
HOSTILE_ANSWERS = {
    "loops for ever": ("while True: pass", STOPPED, "still running after 3 s and was stopped"),
    "loops for ever and will not be interrupted": (
        "\n    while True:\n        try: sum(range(10**7))\n        except BaseException: pass",
        STOPPED,
        "did not end within",
    ),
    "leaves at once": ("import os; os._exit(3)", STOPPED, "ended the Python process (exit status 3)"),
    "raises to leave": ("raise SystemExit(0)", GRADED, "raised `SystemExit: 0`"),
    "prints for ever": ("while True: print('x' * 100_000)", STOPPED, "printed more than 1 MiB"),
    "returns what equals everything": (
        "return type('Yes', (int,), {'__eq__': lambda s, o: True, '__hash__': None})(1)",
        GRADED,
        "an object of type Yes; an `int` is wanted",
    ),
    "returns what equals everything, under a false name": (
        "return type('int', (), {'__eq__': lambda s, o: True, '__hash__': None})()",
        GRADED,
        "an object of type int; an `int` is wanted",
    ),
    "returns itself nested": ("x = []; x.append(x); return x", GRADED, "nested more than 20 deep"),
    "returns too much": ("return list(range(10**6))", GRADED, "more than 100,000 values"),
    "returns an endless integer": ("return 1 << 10**6", GRADED, "an integer of more than 1,024 bits"),
    "returns not a number": ("return float('nan')", GRADED, "it returned a `float`; an `int` is wanted"),
    "replaces the sandbox's own functions": (
        "import sys\n    f = sys._getframe()\n    while f:\n        f.f_globals['as_plain'] = lambda v: v\n"
        "        f = f.f_back\n    return 'text', {1: 2}",
        GRADED,
        "an `int` is wanted",
    ),
    "raises with a very long text": (
        "raise type('E', (Exception,), {'__str__': lambda s: 'x' * 10**7})()",
        GRADED,
        "raised `E",
    ),
}


@pytest.mark.parametrize("what", HOSTILE_ANSWERS)
def test_a_hostile_answer_costs_only_its_own_exercise(graded, what):
    code, status, message = HOSTILE_ANSWERS[what]
    # exercise 4 does not call exercise 3, so everything but exercise 3 can still be earned
    source = f"def quantized_bytes(shape, bits, group, scale_bits, offset_bits):\n    {code}"
    result = graded(notebook(quantized_bytes=source, last=""))
    scores = {verdict.exercise: verdict.earned for verdict in result.verdicts}
    assert scores == {"read_header": 5, "count_parameters": 6, "quantized_bytes": 0, "review_release": 5}
    assert result.status == status
    verdict = next(verdict for verdict in result.verdicts if verdict.exercise == "quantized_bytes")
    assert message in verdict.message
    assert len(verdict.message) < 1000


def test_replacing_the_builtins_earns_nothing(graded):
    fooling = (
        "import builtins\nbuiltins.abs = builtins.sum = builtins.type = builtins.isinstance = lambda *a: 1"
    )
    nothing = "def count_parameters(config): return 1"
    result = graded(notebook(first=fooling, count_parameters=nothing))
    assert next(v for v in result.verdicts if v.exercise == "count_parameters").earned == 0


def test_a_check_that_the_student_overrides_does_not_matter(graded):
    cheat = "def check(name): return 'full points'"
    wrong = "def count_parameters(config): return 1"
    result = graded(notebook(first=cheat, count_parameters=wrong))
    assert next(v for v in result.verdicts if v.exercise == "count_parameters").earned == 0


def test_time_for_the_whole_notebook_is_bounded(tmp_path):
    stubborn = "while True:\n    try: sum(range(10**7))\n    except BaseException: pass"
    content = notebook(first=stubborn)
    content["cells"] = content["cells"][:1] * 9 + content["cells"]
    hurried = dataclasses.replace(LAB, limits=dataclasses.replace(LAB.limits, seconds_total=25))
    path = handed_in(tmp_path, "student", content)
    began = time.monotonic()
    result = grade(Submission("student", hurried, path), seed=7)
    assert time.monotonic() - began < 25 + 30
    assert result.status == STOPPED
    assert "not asked, because the time for the whole notebook (25 s) was used up" in result.notes[-1]
