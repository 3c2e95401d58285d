"""Checks of the computer itself: Python, compiler, memory, disk, port, browser, sandbox, GPU."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from labsupport.machine import cgroup, detect
from labsupport.machine.doctor import Finding
from labsupport.machine.setup import needs

GIB = 2**30
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LEAST_FREE_BYTES = 2 * GIB
"""The synthetic 0.3B model, its conversion and its quantized forms together, with room to spare."""
LEAST_MEMORY_BYTES = 4 * GIB
"""JupyterLab, a notebook with torch and a model server, side by side."""
GRADE_IN_IMAGE = (
    "run the grader in the course's image, which has bubblewrap: `make image`, then "
    "`docker run --rm --network none --security-opt seccomp=unconfined --security-opt systempaths=unconfined "
    '-v "$PWD":/class -w /class under-the-endpoint labsupport grade`'
)
ALLOW_NAMESPACES = (
    "allow unprivileged user namespaces: `sudo sysctl -w kernel.unprivileged_userns_clone=1` on Debian, "
    "`sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` on Ubuntu"
)


def python() -> Finding:
    """Python is new enough and can make virtual environments."""
    lacks = needs.lacks(root=Path.cwd(), cache=Path.cwd(), free_bytes=0, compiler=False)
    if lacks:
        return Finding("python", "fail", lacks[0].problem, lacks[0].remedy)
    return Finding("python", "ok", f"Python {platform.python_version()} ({sys.executable})")


def compiler(*, needed: bool) -> Finding:
    """A C++ compiler compiles; it is a note where llama.cpp is built already and it is not `needed`."""
    ignored = len(needs.lacks(root=Path.cwd(), cache=Path.cwd(), free_bytes=0, compiler=False))
    lacks = needs.lacks(root=Path.cwd(), cache=Path.cwd(), free_bytes=0, compiler=True)[ignored:]
    if not lacks:
        return Finding("compiler", "ok", "C and C++ compile")
    if needed:
        return Finding("compiler", "fail", lacks[0].problem, lacks[0].remedy)
    detail = f"{lacks[0].problem} It is built already, so only building it again would need one."
    return Finding("compiler", "note", detail, lacks[0].remedy)


def memory(*, least_bytes: int = LEAST_MEMORY_BYTES) -> Finding:
    """There is memory for JupyterLab, a notebook and a server; a container's limit counts."""
    installed = psutil.virtual_memory()
    limit = cgroup.memory_limit_bytes()
    total = installed.total if limit is None else min(limit, installed.total)
    amount = f"{total / GIB:.1f} GiB" + (" (the container's limit)" if total < installed.total else "")
    if total < least_bytes:
        remedy = "give the container or virtual machine more memory, or use a larger computer"
        return Finding("memory", "fail", f"{amount}; at least {least_bytes / GIB:.1f} GiB are needed", remedy)
    if installed.available < least_bytes / 2:
        detail = f"{amount}, of which only {installed.available / GIB:.1f} GiB are available now"
        return Finding(
            "memory", "note", detail, "close programs that use much memory (`top`, then M, lists them)"
        )
    return Finding("memory", "ok", f"{amount}, {min(installed.available, total) / GIB:.1f} GiB available")


def disk(cache: Path, *, least_bytes: int = LEAST_FREE_BYTES) -> Finding:
    """The disk that holds the cache has room for the models that lessons make."""
    place = detect.existing(cache)
    free = shutil.disk_usage(place).free
    if free < least_bytes:
        problem = f"{free / GIB:.1f} GiB free at {place}; at least {least_bytes / GIB:.1f} GiB are needed"
        remedy = f"free some space (see `du -sh {place}/*`), or set LABSUPPORT_CACHE to a larger disk"
        return Finding("disk", "fail", problem, remedy)
    return Finding("disk", "ok", f"{free / GIB:.1f} GiB free at {place}")


def cache(folder: Path) -> Finding:
    """The cache can be made and written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="doctor-") as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
    except OSError as error:
        remedy = (
            f"make it yours (`sudo chown -R $(id -un) {folder}`), or set LABSUPPORT_CACHE to a folder that is"
        )
        return Finding("cache", "fail", f"{folder} cannot be written: {error.strerror}", remedy)
    return Finding("cache", "ok", f"{folder} can be written")


def port(number: int = 8000) -> Finding:
    """Whether `labsupport serve` finds its usual port free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            detail = f"port {number} is taken ({error.strerror})"
            return Finding(
                "port", "note", detail, f"`labsupport serve --port {number + 1}`, or stop what uses {number}"
            )
    return Finding("port", "ok", f"port {number} is free")


def browser() -> Finding:
    """A browser for the tests; readers use whatever browser they have."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found:
        return Finding("browser", "ok", found)
    remedy = needs.install(apt="chromium", dnf="chromium", pacman="chromium", brew="--cask chromium")
    return Finding("browser", "note", "no Chromium or Chrome on PATH", f"to run every test: {remedy}")


def sandbox(*, timeout_seconds: float = 20) -> Finding:
    """bubblewrap really makes a sandbox; only grading other people's work needs it."""
    remedy = needs.install(apt="bubblewrap", dnf="bubblewrap", pacman="bubblewrap", brew="")
    if platform.system() == "Darwin":  # bubblewrap is made of Linux's namespaces: no package manager has it
        remedy = GRADE_IN_IMAGE
    program = shutil.which("bwrap")
    if program is None:
        return Finding("sandbox", "note", "no bubblewrap (bwrap) on PATH", f"to grade a class: {remedy}")
    words = [program, "--unshare-all", "--ro-bind", "/", "/", "true"]
    try:
        result = subprocess.run(words, capture_output=True, text=True, timeout=timeout_seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        detail = f"bubblewrap could not be run: {error}"
        return Finding("sandbox", "note", detail, f"remove {program}, which is broken; then: {remedy}")
    if result.returncode != 0:
        detail = f"bubblewrap cannot make a sandbox here: {result.stderr.strip()}"
        return Finding("sandbox", "note", detail, ALLOW_NAMESPACES)
    return Finding("sandbox", "ok", "bubblewrap makes a sandbox")
