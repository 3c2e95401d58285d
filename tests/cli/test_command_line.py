"""The command line as its user meets it: quick help, clear refusals, exit statuses that scripts can trust."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import labsupport as package
from labsupport import __version__
from labsupport.cli import COMMANDS, main
from labsupport.errors import LabsupportError
from labsupport.machine.detect import usable_cores

HEAVY = {"torch", "transformers", "llama_cpp", "matplotlib", "ipywidgets", "fastapi", "numpy", "psutil"}
SECONDS_AT_MOST = 0.3


def labsupport(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "labsupport", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=300)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_is_quick_and_light(command: str) -> None:
    words = [sys.executable, "-X", "importtime", "-m", "labsupport", command, "--help"]
    costs = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run(words, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    imported = {line.split("|")[-1].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert imported & HEAVY == set()
    assert min(costs) < SECONDS_AT_MOST
    assert "--help" in result.stdout


def test_the_help_lists_every_command_with_what_it_does() -> None:
    printed = " ".join(labsupport("--help").stdout.split())

    for name, summary in COMMANDS.items():
        assert name in printed
        assert summary in printed


def test_the_version_is_the_packages() -> None:
    assert labsupport("--version").stdout == f"labsupport {__version__}\n"


@pytest.mark.parametrize("words", [["dance"], [], ["doctor", "--dance"]])
def test_wrong_usage_ends_with_2_and_says_what_is_right(words: list[str]) -> None:
    result = labsupport(*words)

    assert result.returncode == 2
    assert result.stdout == ""
    assert "usage: labsupport" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_command_is_answered_with_the_ones_there_are() -> None:
    printed = labsupport("dance").stderr

    assert "dance" in printed
    assert all(name in printed for name in COMMANDS)


def test_a_mistake_that_can_be_mended_is_told_in_three_lines_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from labsupport.cli import doctor

    def run(arguments: object) -> int:
        raise LabsupportError("you gave 3", allowed="1 or 2", remedy="give 2")

    monkeypatch.setattr(doctor, "run", run)

    status = main(["doctor"])

    assert status == 1
    assert capsys.readouterr().err == "labsupport doctor: you gave 3\nAllowed: 1 or 2\nWhat to do: give 2\n"


def test_ctrl_c_ends_with_130_and_no_traceback() -> None:
    command = [sys.executable, "-m", "labsupport", "doctor"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl+C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    process.stdout.readline()  # the first finding: the command runs

    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Traceback" not in complaints


def test_the_doctor_ends_with_1_and_prints_the_remedy_when_something_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of the cache")

    result = labsupport("doctor", LABSUPPORT_CACHE=str(tmp_path / "file" / "cache"))

    assert result.returncode == 1
    lines = result.stdout.splitlines()
    broken = next(number for number, line in enumerate(lines) if line.startswith("FAIL  cache"))
    assert "cannot be written" in lines[broken]
    assert "LABSUPPORT_CACHE" in lines[broken + 1]
    assert "checks failed" in lines[-1]


def test_the_doctor_notices_weights_that_are_cut_short_and_how_to_get_them_back(tmp_path: Path) -> None:
    shutil.copytree(Path(package.__file__).parent, tmp_path / "labsupport")
    weights = tmp_path / "labsupport" / "pocket" / "weights" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)

    command = [sys.executable, "-m", "labsupport", "doctor", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    assert result.returncode == 1
    findings = {one["check"]: one for one in json.loads(result.stdout)["findings"]}
    assert findings["model"]["state"] == "fail"
    assert str(weights) in findings["model"]["detail"]
    assert findings["model"]["remedy"] == f"git checkout -- '{weights}'"


def test_the_doctor_finds_this_environment_fit_and_says_so_as_json() -> None:
    result = labsupport("doctor", "--json")

    report = json.loads(result.stdout)
    assert [one for one in report["findings"] if one["state"] == "fail"] == []
    assert report["healthy"] is True
    assert result.returncode == 0
    assert {"python", "compiler", "memory", "disk", "cache", "torch", "llama.cpp"} <= {
        one["check"] for one in report["findings"]
    }


def test_the_datasheet_is_json_and_a_picture_and_costs_less_than_twenty_seconds(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    result = labsupport("datasheet", "--json", "--out", str(tmp_path / "sheet.png"))

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0
    assert json.loads(result.stdout)["measurements"]
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    # Processor time, which other programs do not lengthen: on a quiet computer no core is busy for 20 s.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 20 * usable_cores()


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    result = labsupport("datasheet", "--out", str(tmp_path / "sheet.doc"))

    assert result.returncode == 1
    assert "Allowed: .png, .svg, .pdf" in result.stderr
    assert result.stdout == ""
