"""What must be there before anything is downloaded, each with the command that brings it.

Right means: every lack is found at once, not one per attempt, and the remedy is a line that can be pasted.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OLDEST_PYTHON = (3, 11)
GIB = 2**30
DOWNLOADED_SHARE = 0.4  # of what is written; an upper bound, since a package is smaller packed than unpacked
PROGRAM = "#include <string>\n#include <thread>\nint main() { return std::string().size(); }\n"


@dataclass(frozen=True)
class Lack:
    """Something that is missing (`problem`), and the command that mends it (`remedy`)."""

    problem: str
    remedy: str


def lacks(*, root: Path, cache: Path, free_bytes: int, compiler: bool) -> list[Lack]:
    """Everything that this computer lacks for set-up, in the order in which to mend it.

    `free_bytes` is what set-up is going to write below `root` and `cache`, `DOWNLOADED_SHARE` of it by way of
    the temporary folder and pip's cache; `compiler` says whether something has to be compiled.
    """
    found = [*_python_lacks()]
    if compiler:
        found.extend(_compiler_lacks())
    on_the_way = int(DOWNLOADED_SHARE * free_bytes)
    needed = {pip_cache(): on_the_way, Path(tempfile.gettempdir()): on_the_way}
    found.extend(_disk_lacks(needed | {root: free_bytes, cache: free_bytes}))
    return found


def _python_lacks() -> Iterator[Lack]:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Lack(
            f"Python 3.11 or newer is needed; this is Python {version} ({sys.executable}).",
            install(apt="python3 python3-venv", dnf="python3.12", pacman="python", brew="python@3.12"),
        )
    elif importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        yield Lack(
            f"This Python ({sys.executable}) cannot make a virtual environment: "
            "its venv or ensurepip module is missing.",
            install(apt=f"python{version}-venv", dnf="python3-libs", pacman="python", brew="python@3.12"),
        )


def _compiler_lacks() -> Iterator[Lack]:
    remedy = install(apt="build-essential", dnf="gcc gcc-c++ make", pacman="base-devel", brew="")
    candidates = {
        "C": ("CC", ("cc", "gcc", "clang"), "c"),
        "C++": ("CXX", ("c++", "g++", "clang++"), "c++"),
    }
    for language, (variable, names, dialect) in candidates.items():
        asked = os.environ.get(variable, "").split()[:1]
        path = next((found for name in asked or names if (found := shutil.which(name))), None)
        if path is None:
            tried = asked[0] if asked else ", ".join(names)
            yield Lack(f"No {language} compiler was found ({tried}): llama.cpp has to be compiled.", remedy)
        elif dialect == "c++" and (complaint := _compile(path)):
            yield Lack(f"The {language} compiler {path} cannot compile a small program: {complaint}", remedy)


def _compile(compiler: str) -> str:
    """The last line of what the compiler complains of, or nothing: a stub on PATH is not a compiler."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = subprocess.run(
                [compiler, "-x", "c++", "-std=c++17", "-", "-o", str(Path(folder) / "a.out")],
                input=PROGRAM,
                capture_output=True,
                text=True,
                timeout=60,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    if result.returncode == 0:
        return ""
    return (result.stderr.strip().splitlines() or ["it printed nothing"])[-1]


def pip_cache() -> Path:
    """Where pip keeps what it downloaded (https://pip.pypa.io/en/stable/topics/caching/)."""
    if own := os.environ.get("PIP_CACHE_DIR"):
        return Path(own).expanduser()
    if platform.system() == "Darwin":
        return Path.home() / "Library" / "Caches" / "pip"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pip"


def _disk_lacks(needed: dict[Path, int]) -> Iterator[Lack]:
    """A lack for each disk that cannot take the most that is needed on it."""
    most: dict[int, tuple[int, Path]] = {}
    for path, amount in needed.items():
        device = _device(path)
        if device not in most or amount > most[device][0]:
            most[device] = (amount, path)
    for amount, path in most.values():
        free = shutil.disk_usage(_nearest(path)).free
        if free < amount:
            yield Lack(
                f"{amount / GIB:.1f} GiB of free disk space are needed at {path}, "
                f"and {free / GIB:.1f} GiB are free.",
                f"free some space (see what uses it: du -xh -d 1 {_nearest(path)} | sort -h), "
                "or point XDG_CACHE_HOME, PIP_CACHE_DIR and TMPDIR at a larger disk",
            )


def _nearest(path: Path) -> Path:
    """The path itself, or its nearest parent that exists."""
    return next(place for place in (path, *path.resolve().parents) if place.exists())


def _device(path: Path) -> int:
    return _nearest(path).stat().st_dev


def install(*, apt: str, dnf: str, pacman: str, brew: str) -> str:
    """The command that installs these packages with this computer's own package manager."""
    if platform.system() == "Darwin":
        return f"brew install {brew}" if brew else "xcode-select --install"
    sudo = "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "sudo "
    if shutil.which("dnf"):
        return f"{sudo}dnf install -y {dnf}"
    if shutil.which("pacman"):
        return f"{sudo}pacman -S --needed {pacman}"
    return f"{sudo}apt-get update && {sudo}apt-get install -y {apt}"
