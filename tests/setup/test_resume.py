"""Set-up may be stopped at any moment and started again; it leaves no process behind and says what failed."""

from __future__ import annotations

import fcntl
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labsupport.machine.setup import llama_wheel, steps
from labsupport.machine.setup.progress import Board, StepFailed
from labsupport.machine.setup.session import Session

ROOT = Path(__file__).parents[2]


@pytest.fixture
def session(tmp_path):
    for file in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, tmp_path)
    session = Session(root=tmp_path, gpu=False, cpu_index="", steps=9)
    session.venv.mkdir()
    yield session
    session.stop()


def runs(process: int) -> bool:
    """Whether a process runs; one that has ended and was not collected does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_a_finished_step_is_not_done_again_in_the_next_run(session, tmp_path):
    assert session.step("torch", "choose", ["2.13.0"], lambda: {"requirement": "torch"}) == {
        "requirement": "torch"
    }
    later = Session(root=tmp_path, gpu=False, cpu_index="", steps=9)
    assert later.step("torch", "choose", ["2.13.0"], pytest.fail) == {"requirement": "torch"}


def test_a_step_is_done_again_when_an_input_changed_or_its_result_is_gone(session):
    def prepare(weights: str, made: str) -> str:
        return session.step(
            "model", "prepare", [weights], lambda: made, still_there=lambda path: Path(path).exists()
        )

    kept, gone = str(session.root), str(session.root / "gone")
    assert prepare("of 1 May", kept) == kept
    assert prepare("of 1 May", "again") == kept
    assert prepare("of 2 May", gone) == gone
    assert prepare("of 2 May", "again") == "again"


def test_a_step_whose_package_was_removed_or_replaced_is_done_again(session):
    site = session.venv / "lib" / "python3.11" / "site-packages"
    pinned = session.requirements.version("torch")

    def install(version: str) -> None:
        shutil.rmtree(site, ignore_errors=True)
        (site / f"torch-{version}.dist-info").mkdir(parents=True)

    assert not session.holds(["torch"])
    install(f"{pinned}+cpu")
    assert session.holds(["torch"])
    assert not session.holds(["torch", "numpy"])
    install("0.1")
    assert not session.holds(["torch"])


def test_an_interrupted_step_counts_as_not_done(session):
    with pytest.raises(KeyboardInterrupt):
        session.step("packages", "install", [1], lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert session.step("packages", "install", [1], lambda: "done now") == "done now"


def test_a_damaged_stamp_file_means_that_nothing_is_done_yet(session, tmp_path):
    session.stamps.path.write_text('{"venv": ')
    later = Session(root=tmp_path, gpu=False, cpu_index="", steps=9)
    assert later.step("venv", "make", [1], lambda: "made") == "made"


def test_a_failure_shows_the_end_of_the_output_and_where_all_of_it_is(session):
    program = "print('line of output ' * 3); import sys; sys.exit('the cause')"
    session.board.heading("compile")
    with pytest.raises(StepFailed) as caught:
        session.run("probe", sys.executable, "-c", program)
    assert "“compile” failed (exit status 1)" in str(caught.value)
    assert "the cause" in str(caught.value)
    assert str(session.logs / "probe.log") in str(caught.value)


def test_stopping_ends_a_command_with_everything_it_started(session):
    job = session.start("probe", "sh", "-c", "sleep 600 & echo $!; wait")
    while not job.last_line():
        time.sleep(0.02)
    grandchild = int(job.last_line())
    assert runs(grandchild)
    session.stop()
    time.sleep(0.2)
    assert not runs(grandchild)
    assert job.status is not None


def test_progress_says_the_step_of_how_many_what_it_waits_for_and_for_how_long(session, capsys, monkeypatch):
    monkeypatch.setattr("labsupport.machine.setup.progress.SECONDS_BETWEEN_LINES", 0.2)
    board = Board(3)
    board.heading("install")
    program = "import time; print('Collecting torch', flush=True); time.sleep(1)"
    beside = session.start(
        "beside", sys.executable, "-c", program.replace("Collecting torch", "[37/140] CXX")
    )
    board.wait(session.start("probe", sys.executable, "-c", program), beside=beside)
    shown = capsys.readouterr().out
    assert shown.startswith("[1/3] install\n")
    assert "0:00  Collecting torch  | beside it: [37/140] CXX" in shown


def test_two_set_ups_of_one_clone_take_turns_and_an_interrupt_ends_one(tmp_path):
    lock = tmp_path / ".cache" / "setup" / "lock"
    lock.parent.mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "labsupport.machine.setup",
        "--root",
        tmp_path,
        "--torch-cpu-index",
        "none",
    ]
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert "Another set-up runs in this folder" in waiting.stdout.readline()
        waiting.send_signal(signal.SIGTERM)
        _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert "Interrupted. Run the same command again" in said


def test_the_llama_wheel_is_kept_for_the_same_version_flags_and_processor_only(tmp_path):
    arguments = llama_wheel.cmake_arguments(cuda=False)
    place = llama_wheel.folder(tmp_path, version="0.3.36", arguments=arguments)
    built = tmp_path / "built"
    built.mkdir()
    (built / "llama_cpp_python-0.3.36-py3-none-any.whl").touch()

    assert llama_wheel.kept(place) is None
    wheel = llama_wheel.keep(built, place)
    assert llama_wheel.kept(place) == wheel
    assert llama_wheel.folder(tmp_path, version="0.3.37", arguments=arguments) != place
    with_cuda = llama_wheel.cmake_arguments(cuda=True)
    assert llama_wheel.folder(tmp_path, version="0.3.36", arguments=with_cuda) != place


def test_the_llama_build_is_trimmed_and_a_users_own_flags_come_last():
    words = llama_wheel.cmake_arguments(cuda=True, extra="-DGGML_NATIVE=OFF").split()
    assert {"-DLLAVA_BUILD=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DGGML_CUDA=ON"} < set(words)
    assert words[-1] == "-DGGML_NATIVE=OFF"


def test_jupyterlabs_defaults_come_back_when_only_they_are_deleted(session, monkeypatch):
    installed = []
    monkeypatch.setattr(llama_wheel, "kept", lambda folder: folder / "llama.whl")
    monkeypatch.setattr(session, "pip", lambda *words, **_: installed.append(words))
    monkeypatch.setattr(session, "holds", lambda names: bool(installed))
    settings = session.venv / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    for _ in range(2):
        steps.install_course(session, None)
    assert sum(words[0] == "check" for words in installed) == 1  # the second run had nothing to do
    settings.unlink()
    steps.install_course(session, None)
    assert settings.read_text() == steps.LAB_SETTINGS.read_text()
