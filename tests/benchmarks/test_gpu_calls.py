"""A call on a GPU: bounded in time, keeps what it has, goes on where it stopped, says when there is none."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import gpu
from benchmarks.cuda import machine
from benchmarks.cuda.checkpoint import roomy_folder
from benchmarks.cuda.child import run_child
from benchmarks.cuda.session import Options, Session
from benchmarks.results import read
from labsupport.anatomy import safetensors_header
from labsupport.errors import LabsupportError

TINY = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}


def session(folder: Path, **options: Any) -> Session:
    return Session("bf16", Options(out=folder, device="cpu", **options), TINY)


def test_without_a_gpu_it_says_so_and_measures_nothing(no_gpu: Path, tmp_path: Path) -> None:
    with pytest.raises(LabsupportError, match="no NVIDIA GPU") as caught:
        gpu.main(["memory", "--out", str(tmp_path / "out")])
    assert "make bench" in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_a_gpu_whose_driver_does_not_answer_is_told_apart(no_gpu: Path) -> None:
    (no_gpu / "dev" / "nvidia0").touch()

    with pytest.raises(LabsupportError, match="does not answer"):
        machine.gpu_or_refuse()


def test_figures_of_a_cpu_do_not_get_into_the_results() -> None:
    with pytest.raises(LabsupportError, match="mean nothing"):
        gpu.main(["bf16", "--device", "cpu"])


def test_what_was_printed_before_the_time_was_up_is_kept_and_nothing_lives_on(tmp_path: Path) -> None:
    # Given a process that prints a line, starts another, and would go on for minutes
    code = (
        "import subprocess, sys, time;"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], stdout=2);"
        "print(other.pid, flush=True); time.sleep(300)"
    )
    lines: list[str] = []
    began = time.monotonic()
    # When its time is up
    problem = run_child([sys.executable, "-c", code], seconds=20, log=tmp_path / "log", on_line=lines.append)
    # Then its line is there, and neither process is
    assert "its time was up" in problem
    assert time.monotonic() - began < 120
    (other,) = map(int, lines)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(other) and psutil.Process(other).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_process_that_fails_says_why_with_its_own_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run_child([sys.executable, "-c", "raise SystemExit('of another time')"], seconds=60, log=log)

    problem = run_child([sys.executable, "-c", "print(input()); 1 / 0"], seconds=60, log=log, given="hello\n")

    assert problem.startswith("status 1: ")
    assert "ZeroDivisionError" in problem
    assert "of another time" not in problem
    assert run_child([sys.executable, "-c", ""], seconds=0, log=log) == "no time was left for it"


def test_only_what_is_missing_is_asked_for_and_every_entry_is_kept_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def answer(self: Session, work: dict[str, Any], on_entry: Any, **_: Any) -> bool:
        asked.append(work)
        for count in work["sequences"][:2]:  # then its time is up
            on_entry({"sequences": count, "figures": {"whole_run_tokens_per_second": 1.0}})
            assert read(file)["pairs"][-1]["sequences"] == count
        return False

    monkeypatch.setattr(Session, "ask", answer)
    file = tmp_path / "gpu-decode-bf16-generate.json"
    for _ in range(3):
        gpu._decode(session(tmp_path, sequences=(1, 32, 8)), "generate", "bf16", tmp_path)

    assert [work["sequences"] for work in asked] == [[1, 32, 8], [8]]
    assert [entry["sequences"] for entry in read(file)["pairs"]] == [1, 32, 8]


def test_a_peers_figures_outlive_a_change_of_our_code_and_ours_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ours", "generate"):
        session(tmp_path).series(name, "gpu-decode", own_code=name == "ours").add({"sequences": 1})
    monkeypatch.setattr(machine, "code", lambda: "changed")

    kept = {
        name: session(tmp_path).series(name, "gpu-decode", own_code=name == "ours").pairs
        for name in ("ours", "generate")
    }

    assert kept == {"ours": [], "generate": [{"sequences": 1}]}


def test_the_tests_that_did_not_pass_are_named(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(
        '<testsuites><testsuite><testcase name="good" time="1"/><testcase name="bad" time="2"><failure/>'
        '</testcase><testcase name="left"><skipped/></testcase></testsuite></testsuites>'
    )

    found = gpu.read_report(tmp_path / "report.xml")

    assert found == {"tests": 3, "seconds": 3.0, "failed": ["bad"], "broken": [], "skipped": ["left"]}


def test_a_model_goes_where_there_is_room(tmp_path: Path) -> None:
    assert roomy_folder(1, tmp_path) == tmp_path
    with pytest.raises(LabsupportError, match="no folder has room") as caught:
        roomy_folder(10**18, tmp_path)
    assert "--scratch" in caught.value.remedy


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_of_it_tiny_on_a_cpu(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    words = ["bf16", "--device", "cpu", "--shape", str(tmp_path / "tiny.json"), "--out", str(out)]
    words += ["--scratch", str(scratch), "--sequences", "2", "1", "--minutes", "29"]
    words += ["--prompt-tokens", "16", "--new-tokens", "12", "--repetitions", "2"]

    assert gpu.main(words) == 0, capfd.readouterr().out

    (weights,) = scratch.rglob("model.safetensors")
    assert {tensor.dtype for tensor in safetensors_header.read(weights).tensors} == {"BF16"}
    for contender in ("ours", "generate", "continuous"):
        found = read(out / f"gpu-decode-bf16-{contender}.json")
        assert [entry["sequences"] for entry in found["pairs"]] == [2, 1]
        assert all(entry["figures"]["decode_tokens_per_second"] > 0 for entry in found["pairs"])
        assert all(len(entry["samples"]) == 2 for entry in found["pairs"])
    assert "| tiny, bf16, 1 |" in capfd.readouterr().out

    began = time.monotonic()
    assert gpu.main(words) == 0
    assert "ours" not in capfd.readouterr().out.split("gpu-decode")[0], "all is there: nothing is run again"
    assert time.monotonic() - began < 120
