"""What `make conda` hands to conda, seen by a conda that only prints it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labsupport.machine import nvidia
from labsupport.machine.setup.llama_wheel import cmake_arguments

ROOT = Path(__file__).parents[2]
PRINTS = """#!/bin/sh
echo "conda $*"
echo "index:" $PIP_EXTRA_INDEX_URL
echo "flags:" $CMAKE_ARGS
"""


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder to stand for PATH, with make, a conda and no GPU's tool in it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "make", "id", "uname"):
        (folder / name).symlink_to(str(shutil.which(name)))
    program(folder, "conda", PRINTS)
    return folder


def make_conda(tools: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    words = ["make", "conda", f"PYTHON={sys.executable}", "TORCH_CPU_INDEX=https://cpu.example"]
    surroundings = {"PATH": str(tools), **environment}
    return subprocess.run(words, cwd=ROOT, env=surroundings, capture_output=True, text=True)


def test_without_a_gpu_pip_is_shown_the_cpu_index_and_llama_is_trimmed(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tools))
    index = "" if nvidia.is_present() else " https://cpu.example"

    result = make_conda(tools)

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "conda env create -f environment.yml",
        f"index:{index}",
        f"flags: {cmake_arguments(cuda=False)}",
    ]


def test_with_a_gpu_pip_is_left_to_its_own_choice(tools: Path) -> None:
    program(tools, "nvidia-smi", "#!/bin/sh\necho 'GPU 0: Some GPU'\n")

    assert make_conda(tools).stdout.splitlines()[1] == "index:"


def test_on_a_mac_pip_is_left_to_its_own_choice(tools: Path) -> None:
    (tools / "uname").unlink()
    program(tools, "uname", "#!/bin/sh\necho Darwin\n")

    assert make_conda(tools).stdout.splitlines()[1] == "index:"


def test_a_users_own_index_and_flags_are_kept(tools: Path) -> None:
    result = make_conda(tools, PIP_EXTRA_INDEX_URL="https://own.example", CMAKE_ARGS="-DGGML_NATIVE=OFF")

    _, index, flags = result.stdout.splitlines()
    assert index.endswith(" https://own.example")
    assert flags == f"flags: {cmake_arguments(cuda=False)} -DGGML_NATIVE=OFF"


@pytest.mark.parametrize("fails", ["conda", "python"])
def test_a_failure_of_conda_or_of_the_question_is_makes_own(tools: Path, fails: str) -> None:
    if fails == "conda":
        program(tools, "conda", "#!/bin/sh\nexit 3\n")
        result = make_conda(tools)
    else:
        words = ["make", "conda", f"PYTHON={tools / 'none'}"]
        result = subprocess.run(words, cwd=ROOT, env={"PATH": str(tools)}, capture_output=True, text=True)

    assert result.returncode != 0
    assert "conda env create" not in result.stdout
