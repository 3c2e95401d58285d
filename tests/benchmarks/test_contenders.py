"""Starting servers: what is missing is named, what fails says why, and nothing is left behind."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.batched_bench import peer_figures
from benchmarks.contenders.contender import Setup, flags
from benchmarks.contenders.llama_cpp_server import LlamaCppServer
from benchmarks.contenders.llama_server import LlamaServer
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.process import Running
from benchmarks.contenders.transformers_serve import TransformersServe
from benchmarks.load_process import run_load
from benchmarks.options import Options, parse
from benchmarks.quiet import refuse_if_busy
from labsupport.errors import LabsupportError
from labsupport.loadtest import Prompt

ROOT = Path(__file__).parents[2]
LEASH = ROOT / "benchmarks" / "contenders" / "leash.py"
SETUP = Setup(
    model="pocket",
    gguf=Path("/models/pocket.gguf"),
    checkpoint=Path("/models/pocket"),
    threads=2,
    slots=16,
    context_tokens=2048,
    kv_cells=16384,
    end_tokens=(1, 3),
)


@dataclass(frozen=True)
class Broken:
    """A contender whose command is what the test says."""

    code: str
    name: str = "broken"
    ready_path: str = "/health"

    def command(self, setup: Setup, port: int) -> list[str]:
        return [sys.executable, "-c", self.code]

    def environment(self, setup: Setup) -> dict[str, str]:
        return {}

    def lack(self, setup: Setup) -> str:
        return ""

    def version(self) -> str:
        return "0"

    def model_name(self, setup: Setup) -> str | None:
        return None

    def extra(self, setup: Setup) -> dict[str, Any]:
        return {}


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def folder_of(package: str) -> Path:
    """Where a package is, without the seconds that importing it would take."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("how", ["closes", "dies"])
def test_the_leash_ends_a_server_when_whoever_holds_it_is_gone(tmp_path: Path, how: str) -> None:
    note = tmp_path / "pid"
    serve = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    hold = (
        "import subprocess, sys, time;"
        f"held = subprocess.Popen([sys.executable, {str(LEASH)!r}, sys.executable, '-c', {serve!r}],"
        "stdin=subprocess.PIPE); time.sleep(600)"
    )
    if how == "dies":
        holder = subprocess.Popen([sys.executable, "-c", hold])
    else:
        holder = subprocess.Popen(
            [sys.executable, str(LEASH), sys.executable, "-c", serve], stdin=subprocess.PIPE
        )
    wait_for(lambda: note.exists() and note.read_text())
    pid = int(note.read_text())
    assert not gone(pid)

    if how == "dies":
        holder.send_signal(signal.SIGKILL)
    else:
        assert holder.stdin is not None
        holder.stdin.close()

    wait_for(lambda: gone(pid))
    holder.wait()


def test_a_server_that_ends_at_once_is_told_with_its_last_words_and_its_command() -> None:
    with (
        pytest.raises(LabsupportError, match="ended with status 1 before it was ready") as failure,
        Running(Broken("raise SystemExit('no such model: x')"), SETUP),
    ):
        pytest.fail("it never came up")
    assert "no such model: x" in failure.value.problem
    assert "-c raise SystemExit" in failure.value.remedy


def test_missing_peers_are_named_with_how_to_get_them(tmp_path: Path) -> None:
    assert "README.md" in LlamaServer(str(tmp_path / "llama-server")).lack(SETUP)
    assert "make_peer" in LlamaCppServer(str(tmp_path / "python")).lack(SETUP)
    assert "make_peer" in LlamaCppServer(sys.executable).lack(SETUP), "its packages are not the project's"
    assert Ours().lack(SETUP) == TransformersServe().lack(SETUP) == ""
    without = Setup(**{**SETUP.__dict__, "checkpoint": None})
    assert "GGUF file only" in TransformersServe().lack(without)


def test_what_is_written_down_of_a_command_knows_no_folders() -> None:
    for contender in (Ours(ledger=Path("/tmp/x/ledger")), LlamaServer("/bin/sh"), TransformersServe()):
        assert not [word for word in flags(contender, SETUP) if word.startswith("/")]
    assert "pocket.gguf" in flags(Ours(), SETUP)


def test_all_contenders_get_the_same_threads_slots_and_cells() -> None:
    def value(command: list[str], flag: str) -> str:
        return command[command.index(flag) + 1]

    ours, theirs = Ours().command(SETUP, 1), LlamaServer("/bin/sh").command(SETUP, 1)

    assert value(ours, "--threads") == value(theirs, "--threads") == value(theirs, "--threads-batch") == "2"
    assert value(ours, "--slots") == value(theirs, "--parallel") == "16"
    assert value(theirs, "--ctx-size") == "16384"
    assert {"--kv-unified", "--cont-batching", "--cache-prompt"} <= set(theirs)
    assert value(LlamaCppServer("python").command(SETUP, 1), "--n_threads_batch") == "2"


def test_the_flags_of_llama_cpp_server_are_fields_of_its_settings() -> None:
    source = folder_of("llama_cpp") / "server" / "settings.py"
    fields = {
        node.target.id
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    given = [word[2:] for word in LlamaCppServer("python").command(SETUP, 1) if word.startswith("--")]

    assert given
    assert set(given) <= fields


def test_the_flags_of_transformers_serve_are_options_that_it_has() -> None:
    source = (folder_of("transformers") / "cli" / "serve.py").read_text()
    given = [word[2:] for word in TransformersServe().command(SETUP, 1) if word.startswith("--")]

    assert len(given) >= 6
    for flag in given:
        assert re.search(rf"^ +{flag.replace('-', '_')}: ", source, re.MULTILINE), flag


def test_every_peer_is_kept_from_ending_early() -> None:
    assert LlamaServer().extra(SETUP)["ignore_eos"] is True
    assert LlamaCppServer("python").extra(SETUP)["logit_bias"] == {"1": -100.0, "3": -100.0}
    assert json.loads(TransformersServe().extra(SETUP)["generation_config"])["eos_token_id"] == -1


def test_unknown_names_are_refused_with_the_ones_there_are() -> None:
    with pytest.raises(LabsupportError) as refusal:
        Options(peer=("nginx",)).peers()
    assert "llama-server" in refusal.value.allowed
    with pytest.raises(LabsupportError, match="pairs is 0"):
        parse(["--pairs", "0"], "")


def test_a_load_on_nothing_is_an_error_with_words() -> None:
    with pytest.raises(LabsupportError, match="nothing answers at"):
        run_load(
            "http://127.0.0.1:9",
            [Prompt(prompt="x")],
            clients=1,
            seconds=1,
            model=None,
            extra={},
            timeout_seconds=5,
        )


def test_a_busy_machine_is_refused_and_the_busy_process_named() -> None:
    busy = "import os\nif os.fork() == 0:\n    print(os.getpid(), flush=True)\n    while True: pass\n"
    # Its parent ends, so that it is no child of ours.
    started = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    pid = int(started.stdout.readline())
    started.wait()
    try:
        with pytest.raises(LabsupportError, match="this machine is busy") as refusal:
            refuse_if_busy()
        assert f"(process {pid})" in refusal.value.problem
        assert "--anyway" in refusal.value.remedy
    finally:
        os.kill(pid, signal.SIGKILL)


def test_the_figures_of_llama_batched_bench_are_read_from_what_it_prints(tmp_path: Path) -> None:
    row = '{"n_kv_max": 512, "pp": 128, "tg": 64, "pl": 2, "speed_pp": 512.0, "speed_tg": 85.3, "t": 2.0}'
    program = tmp_path / "llama-batched-bench"
    program.write_text(f"#!/bin/sh\necho a line of the log\necho '{row}' >&2\n")
    program.chmod(0o755)

    figures = peer_figures([str(program)])

    assert figures["whole_run_tokens_per_second"] == 2 * 64 / 2.0
    assert figures["decode_tokens_per_second"] == 85.3

    program.write_text("#!/bin/sh\necho error: unable to load model >&2\nexit 1\n")
    with pytest.raises(LabsupportError, match="unable to load model"):
        peer_figures([str(program)])
