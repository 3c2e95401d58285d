"""What is brought along to a machine without a network: the right wheels and sources, one architecture."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks.cuda import bring, brought, llama_build
from labsupport.errors import LabsupportError

HERE = f"cp{sys.version_info.major}{sys.version_info.minor}"


def wheel(folder: Path, name: str, *, module: str = "bitsandbytes", text: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(f"{module}/__init__.py", text)
    return folder / name


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has none of the packages, whatever this one has."""
    monkeypatch.setattr(brought, "MODULES", {name: f"{name}_of_the_test" for name in brought.MODULES})


def test_of_several_wheels_the_newest_that_fits_this_python_is_taken(tmp_path: Path) -> None:
    wheel(tmp_path, "bitsandbytes-0.9.0-py3-none-any.whl")
    best = wheel(tmp_path, "bitsandbytes-0.50.2-py3-none-any.whl")
    wheel(tmp_path, "bitsandbytes-0.60.0-py3-none-win_arm64.whl")
    wheel(tmp_path, "bitsandbytes-0.70.0-cp27-cp27m-manylinux_2_17_x86_64.whl")
    wheel(tmp_path, "msgspec-0.99.0-py3-none-any.whl")
    wheel(tmp_path, "not a wheel.whl")

    assert brought.best_wheel("bitsandbytes", tmp_path) == best
    assert brought.best_wheel("gguf", tmp_path) is None


def test_a_missing_package_can_be_imported_from_its_wheel(tmp_path: Path, nothing_installed: None) -> None:
    module = brought.MODULES["gguf"]
    wheel(tmp_path / "wheels", f"gguf-1.0-{HERE}-none-any.whl", module=module, text="ANSWER = 42")

    (site,) = brought.unpack_missing(("gguf",), tmp_path)

    said = subprocess.run(
        [sys.executable, "-c", f"import {module}; print({module}.ANSWER)"],
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert said.stdout == "42\n", said.stderr
    (tmp_path / "wheels" / f"gguf-1.0-{HERE}-none-any.whl").unlink()
    assert brought.unpack_missing(("gguf",), tmp_path) == [site], "once unpacked, no wheel is needed"


def test_all_that_is_missing_is_named_with_the_remedy(tmp_path: Path, nothing_installed: None) -> None:
    with pytest.raises(LabsupportError, match="bitsandbytes, msgspec") as caught:
        brought.unpack_missing(("bitsandbytes", "msgspec"), tmp_path)
    assert "benchmarks.cuda.bring --python 3" in caught.value.remedy


def test_what_is_installed_is_left_alone(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "msgspec-99-py3-none-any.whl", module="msgspec")

    assert brought.unpack_missing(("msgspec",), tmp_path) == []


def test_of_the_source_archive_only_what_is_built_is_taken(tmp_path: Path) -> None:
    members = [
        "llama_cpp/llama_cpp.py",
        "llama_cpp/server/app.py",
        "vendor/llama.cpp/CMakeLists.txt",
        "vendor/llama.cpp/src/CMakeLists.txt",
        "vendor/llama.cpp/src/models/llama.cpp",
        "vendor/llama.cpp/include/llama.h",
        "vendor/llama.cpp/tools/server/server.cpp",
        "vendor/llama.cpp/ggml/CMakeLists.txt",
        "vendor/llama.cpp/ggml/cmake/common.cmake",
        "vendor/llama.cpp/ggml/src/ggml.c",
        "vendor/llama.cpp/ggml/src/ggml-cuda/template-instances/mmq.cu",
        "vendor/llama.cpp/ggml/src/ggml-vulkan/ggml-vulkan.cpp",
    ]
    for member in members:
        file = tmp_path / "packed" / "llama_cpp_python-0" / member
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(member)
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "packed" / "llama_cpp_python-0", "llama_cpp_python-0")

    bring.unpack(tmp_path / "archive.tar.gz", tmp_path / "folder")

    taken = {str(file.relative_to(tmp_path / "folder")) for file in (tmp_path / "folder").rglob("*.*")}
    assert {name for name in taken if (tmp_path / "folder" / name).is_file()} == {
        "binding/llama_cpp/llama_cpp.py",
        "llama.cpp/src/CMakeLists.txt",
        "llama.cpp/src/models/llama.cpp",
        "llama.cpp/include/llama.h",
        "llama.cpp/ggml/CMakeLists.txt",
        "llama.cpp/ggml/cmake/common.cmake",
        "llama.cpp/ggml/src/ggml.c",
        "llama.cpp/ggml/src/ggml-cuda/template-instances/mmq.cu",
    }
    assert brought.llama_sources(tmp_path / "folder") == tmp_path / "folder" / "llama.cpp"
    assert brought.llama_sources(tmp_path) is None


def test_wheels_are_asked_for_the_other_machines_python(tmp_path: Path) -> None:
    ((*command, last),) = bring.pip_commands("3.12", tmp_path, {"bitsandbytes": "0.50.2"})

    assert last == "bitsandbytes==0.50.2"
    assert command[command.index("--python-version") + 1] == "3.12"
    assert "--no-deps" in command


def test_llama_cpp_is_built_for_the_one_architecture_and_no_other(tmp_path: Path) -> None:
    configure, build = llama_build.commands(
        tmp_path, tmp_path / "build", compute_capability="9.0", jobs=16, extra=("-DGGML_CUDA_NO_VMM=ON",)
    )

    assert "-DCMAKE_CUDA_ARCHITECTURES=90-real" in configure
    assert {"-DGGML_CUDA=ON", "-DCMAKE_BUILD_TYPE=Release", f"-DLLAMA_CPP={tmp_path}"} <= set(configure)
    assert configure[-1] == "-DGGML_CUDA_NO_VMM=ON"
    assert build[build.index("--parallel") + 1] == "16"
    assert build[build.index("--target") + 1 :] == ["llama"]
    assert llama_build.architecture("12.0") == "120-real"


def test_the_built_library_and_the_brought_binding_are_found(tmp_path: Path) -> None:
    found = llama_build.environment(tmp_path / "build", tmp_path / "binding", {"PYTHONPATH": "here"})

    assert found["LLAMA_CPP_LIB_PATH"] == str(tmp_path / "build" / "bin")
    assert found["PYTHONPATH"].split(":") == [str(tmp_path / "binding"), "here"]
