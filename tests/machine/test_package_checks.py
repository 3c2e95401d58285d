"""Each check of what is installed is tried as it is, and with the package or pin really broken."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labsupport.machine import package_checks
from labsupport.machine.setup.session import cache_folder


def broken_package(folder: Path, name: str, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package in front of the real one, for processes that start from now on."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(folder))


WRONG_TORCH = """
class ones:
    def __init__(self, *shape): pass
    def __matmul__(self, other): return self
    def sum(self): return 0
"""


def clone(folder: Path, *, needs: list[str], pins: str) -> Path:
    extras = "[project.optional-dependencies]\ndev = []\n"
    (folder / "pyproject.toml").write_text(f"[project]\nname = 'x'\ndependencies = {needs}\n{extras}")
    (folder / "constraints.txt").write_text(pins)
    return folder


def test_a_python_outside_an_environment_is_a_note() -> None:
    packages = os.pathsep.join(path for path in sys.path if path)
    program = "from labsupport.machine import package_checks; found = package_checks.environment(); "
    program += "print(found.state, found.remedy)"
    surroundings = {"PATH": os.environ["PATH"], "PYTHONPATH": packages}

    def state(python: str) -> str:
        command = [python, "-c", program]
        return subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True).stdout

    outside = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert state(str(outside)) == "note use .venv/bin/labsupport, which `make setup` makes\n"
    if sys.prefix != sys.base_prefix:
        assert state(sys.executable) == "ok \n"


def test_a_package_that_another_one_carries_inside_itself_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = tmp_path / "psutil-0.0.1.dist-info"
    carried.mkdir()
    (carried / "METADATA").write_text("Metadata-Version: 2.1\nName: psutil\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert importlib.metadata.version("psutil") == "0.0.1"
    assert package_checks.installed("psutil") not in (None, "0.0.1")


def test_versions_that_differ_and_packages_that_are_missing_fail(tmp_path: Path) -> None:
    has = package_checks.installed("psutil")
    clone(tmp_path, needs=["psutil"], pins=f"psutil=={has}\n")
    assert package_checks.versions(tmp_path).state == "ok"

    clone(tmp_path, needs=["psutil", "no-such-package"], pins="psutil==0.0.1\nnever-installed==1\n")
    finding = package_checks.versions(tmp_path)

    assert finding.state == "fail"
    assert finding.detail == f"no-such-package is missing; psutil is {has}, not 0.0.1"
    assert "make setup" in finding.remedy


def test_no_constraints_file_is_a_note(tmp_path: Path) -> None:
    finding = package_checks.versions(tmp_path)

    assert finding.state == "note"
    assert finding.remedy == "install from a clone: git clone, then `make setup`"


def test_torch_passes() -> None:
    finding = package_checks.torch()

    assert finding.state == "ok"
    assert "threads" in finding.detail


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ImportError('libtorch.so: cannot open')", "ImportError: libtorch.so: cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "SIGILL: built for another processor?"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its process ended with SIGSEGV"),
        (WRONG_TORCH, "AssertionError: torch multiplies wrongly"),
    ],
)
def test_a_torch_that_cannot_be_imported_fails(
    body: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_package(tmp_path, "torch", body, monkeypatch)

    finding = package_checks.torch()

    assert finding.state == "fail"
    assert said in finding.detail
    assert finding.remedy == f"`{sys.executable} -m pip uninstall -y torch`, then `make setup`"


@pytest.mark.parametrize(("package", "check"), [("torch", "torch"), ("llama_cpp", "llama")])
def test_a_package_that_does_not_answer_in_time_is_not_blamed_on_its_installation(
    package: str, check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_package(tmp_path, package, "import time; time.sleep(600)", monkeypatch)
    monkeypatch.setattr(package_checks, "ANSWER_SECONDS", 0.5)

    finding = getattr(package_checks, check)()

    assert finding.state == "fail"
    assert "did not answer within 0.5 s" in finding.detail
    assert finding.remedy == package_checks.LESS_LOAD


def test_llama_passes() -> None:
    assert package_checks.llama().state == "ok"


def test_a_llama_that_cannot_be_imported_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_package(tmp_path, "llama_cpp", "raise OSError('libllama.so: wrong ELF class')", monkeypatch)

    finding = package_checks.llama()

    assert finding.state == "fail"
    assert "wrong ELF class" in finding.detail
    assert "pip uninstall -y llama-cpp-python`, then `make setup`" in finding.remedy
    assert str(cache_folder() / "wheels") in finding.remedy


def test_a_model_that_llama_cannot_decode_is_made_anew_and_llama_is_left_alone(tmp_path: Path) -> None:
    model = tmp_path / "cut.gguf"
    model.write_bytes(b"GGUF\x03\0\0\0")

    finding = package_checks.llama(model)

    assert finding.state == "fail"
    assert f"cannot decode {model}" in finding.detail
    assert finding.remedy == f"`rm '{model}'`, then run `labsupport doctor` again: it makes the file anew"


def test_a_llama_that_decodes_with_foreign_instructions_is_built_again_and_the_model_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports = "__version__ = '0'\ndef llama_supports_gpu_offload(): return False\n"
    decodes = "def Llama(*a, **k): import os, signal; os.kill(os.getpid(), signal.SIGILL)\n"
    broken_package(tmp_path, "llama_cpp", imports + decodes, monkeypatch)

    finding = package_checks.llama(tmp_path / "any.gguf")

    assert finding.state == "fail"
    assert "SIGILL" in finding.detail
    assert "pip uninstall -y llama-cpp-python" in finding.remedy


def test_a_gpu_that_torch_and_llama_do_not_see_is_a_note(
    no_gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = no_gpu / "bin" / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559, 550.54, 9.0'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    blind = "__version__ = '0'\ndef llama_supports_gpu_offload(): return False\n"
    broken_package(tmp_path, "llama_cpp", blind, monkeypatch)

    torch, llama, gpu = package_checks.torch(), package_checks.llama(), package_checks.gpu()

    assert (torch.state, llama.state, gpu.state) == ("note", "note", "ok")
    assert "pip uninstall -y torch`, then `make setup ACCELERATOR=cuda`" in torch.remedy
    assert "`nvcc` on PATH" in llama.remedy
    assert "`make setup ACCELERATOR=cuda`" in llama.remedy
    assert gpu.detail == "NVIDIA H100 80GB HBM3 (80 GiB, driver 550.54)"


def test_a_gpu_that_its_driver_does_not_list_is_a_note_and_none_at_all_is_not(no_gpu: Path) -> None:
    assert package_checks.gpu().state == "ok"

    (no_gpu / "dev" / "nvidia0").touch()
    driver = no_gpu / "bin" / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'Driver/library version mismatch'; exit 18\n")
    driver.chmod(0o755)
    finding = package_checks.gpu()

    assert finding.state == "note"
    assert "its driver does not list it" in finding.detail
    assert "run `nvidia-smi` and mend what it says" in finding.remedy
    assert "--gpus all" in finding.remedy
