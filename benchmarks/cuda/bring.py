"""Fill the folder to bring along: `python -m benchmarks.cuda.bring`, where there is a network.

It gets the wheels that a machine with torch and transformers may lack, for the Python of that machine, and
of llama-cpp-python's source archive what is built there: llama.cpp's `src`, `include` and `ggml` with the CPU
and CUDA backends alone, and the Python files of the binding.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path, PurePosixPath

from benchmarks.cuda.brought import BINDING, BROUGHT, MODULES, SOURCES, WHEELS

PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_24_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
)
_VENDORED = "vendor/llama.cpp"
_BACKENDS = ("ggml-cpu", "ggml-cuda")


def pip_commands(python: str, folder: Path, versions: dict[str, str]) -> list[list[str]]:
    """What pip is asked for: wheels of the given versions for another machine's Python."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    for platform in PLATFORMS:
        target += ["--platform", platform]
    return [[*pip, *target, f"{name}=={version}"] for name, version in versions.items()]


def wanted(member: str) -> str | None:
    """Where a file of the source archive goes, relative to the folder; None if it is not needed.

    member: its path without the archive's first folder.
    """
    path = PurePosixPath(member)
    if path.parts[:1] == ("llama_cpp",) and path.suffix == ".py" and len(path.parts) == 2:
        return f"{BINDING}/{member}"
    if not member.startswith(f"{_VENDORED}/"):
        return None
    inner = path.relative_to(_VENDORED)
    if inner.parts[0] not in ("src", "include", "ggml") and inner.name != "LICENSE":
        return None
    is_backend = inner.parts[:2] == ("ggml", "src") and len(inner.parts) > 3
    if is_backend and inner.parts[2] not in _BACKENDS:
        return None
    return f"{SOURCES}/{inner}"


def unpack(archive: Path, folder: Path) -> None:
    """Take what is wanted out of llama-cpp-python's source archive."""
    with tarfile.open(archive) as files:
        for member in files:
            target = wanted(member.name.partition("/")[2]) if member.isfile() else None
            if target is None:
                continue
            content = files.extractfile(member)
            assert content is not None
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            with (folder / target).open("wb") as file:
                shutil.copyfileobj(content, file)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default="3.12", help="of the machine with the GPU (default: 3.12)")
    parser.add_argument("--to", type=Path, default=BROUGHT, help=f"the folder (default: {BROUGHT.name})")
    options = parser.parse_args(argv)
    wheels = options.to / WHEELS
    wheels.mkdir(parents=True, exist_ok=True)
    for command in pip_commands(options.python, wheels, {name: metadata.version(name) for name in MODULES}):
        print(command[-1], flush=True)
        subprocess.run(command, check=True)
    binding = f"llama-cpp-python=={metadata.version('llama-cpp-python')}"
    print(f"{binding}, its source…", flush=True)
    with tempfile.TemporaryDirectory() as place:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--no-binary", "llama-cpp-python", "--dest", place, binding], check=True)
        unpack(next(Path(place).glob("*.tar.gz")), options.to)
    size = sum(file.stat().st_size for file in options.to.rglob("*") if file.is_file())
    print(f"{options.to}: {size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
