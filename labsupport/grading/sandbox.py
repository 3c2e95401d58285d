"""The sandbox: a process of student code that sees no network, no other files and no other processes.

bubblewrap gives it namespaces of its own (network, processes, users, mounts), a read-only view of Python
and of this package, and a small scratch folder in memory that vanishes with it. Of this package, the
grading room is replaced by its `inside` part, and rooms that would give answers away are closed. Nothing of
the course's own folders (solutions, submissions, grade book) is mounted at all.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from labsupport.errors import LabsupportError
from labsupport.grading.exercise import Lab
from labsupport.grading.inside import plain
from labsupport.grading.syscall_filter import no_new_processes
from labsupport.machine.computer_checks import GRADE_IN_IMAGE

PACKAGE = plain.PACKAGE
INSIDE = Path(plain.__file__).parent
REMEDY = (
    "install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap). "
    f"It needs Linux; elsewhere, {GRADE_IN_IMAGE}"
)


class SandboxUnavailableError(LabsupportError):
    """There is no sandbox here, so nothing is run."""


def require_sandbox() -> None:
    """Raise `SandboxUnavailableError` unless a confined process can really be started here."""
    if shutil.which("bwrap") is None:
        raise SandboxUnavailableError(
            "Student code is run in a sandbox only, and there is none: bubblewrap (`bwrap`) was not found.",
            remedy=REMEDY,
        )
    tried = subprocess.run(
        ["bwrap", *_namespaces(), *_system(), "--", sys.executable, "-c", "pass"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if tried.returncode != 0:
        reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SandboxUnavailableError(
            f"bubblewrap is installed but cannot make a sandbox: {reason}",
            remedy="allow unprivileged user namespaces on this machine, or grade in a container or virtual "
            "machine that has them",
        )


def start(lab: Lab) -> subprocess.Popen[bytes]:
    """Start the responder in a new sandbox; it waits for orders on its standard input."""
    with _passed_on(no_new_processes()) as filter_file:
        return subprocess.Popen(
            [
                "bwrap",
                *_namespaces(),
                *_scratch(lab),  # first: where the course lies under /tmp, it is mounted over this
                *_system(),
                *_course(lab),
                *_sealed(lab),
                *_environment(),
                "--seccomp",
                str(filter_file.fileno()),
                "--",
                sys.executable,
                "-u",
                "-m",
                "labsupport.grading.responder",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[filter_file.fileno()],
            bufsize=0,
        )


def _passed_on(content: bytes) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    file.write(content)
    file.seek(0)
    return file


def _namespaces() -> list[str]:
    return [
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--cap-drop",
        "ALL",
        "--die-with-parent",
        "--new-session",
    ]


def _system() -> Iterator[str]:
    """Python and the libraries it loads, read-only."""
    yield from ("--ro-bind", "/usr", "/usr")
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if Path(name).is_symlink():
            yield from ("--symlink", str(Path(name).readlink()), name)
        elif Path(name).is_dir():
            yield from ("--ro-bind", name, name)
    yield from ("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache")
    for folder in _outermost(Path(prefix).resolve() for prefix in (sys.base_prefix, sys.prefix)):
        yield from ("--ro-bind", str(folder), str(folder))
    yield from ("--proc", "/proc", "--dev", "/dev")


def _outermost(folders: Iterator[Path]) -> list[Path]:
    """The folders that are not under `/usr` or under each other, without repetition."""
    found = sorted({folder for folder in folders if not folder.is_relative_to("/usr")})
    return [one for one in found if not any(one != other and one.is_relative_to(other) for other in found)]


def _course(lab: Lab) -> Iterator[str]:
    """This package, with the grading room and the rooms that give answers away replaced."""
    yield from ("--ro-bind", str(PACKAGE), str(PACKAGE))
    yield from ("--ro-bind", str(INSIDE), str(PACKAGE / "grading"))
    for room in lab.hides:
        if (PACKAGE / room).is_dir():
            yield from ("--ro-bind", str(INSIDE / "closed_room"), str(PACKAGE / room))


def _scratch(lab: Lab) -> Sequence[str]:
    """A place to write, as large as the lab allows."""
    return [*_in_memory(lab, "/tmp"), "--dir", "/tmp/work", "--chdir", "/tmp/work"]


def _sealed(lab: Lab) -> Sequence[str]:
    """Shared memory, as large as the lab allows; everything else becomes read-only."""
    return [*_in_memory(lab, "/dev/shm"), "--remount-ro", "/dev", "--remount-ro", "/"]


def _in_memory(lab: Lab, folder: str) -> Sequence[str]:
    return ["--size", str(lab.limits.disk_bytes), "--tmpfs", folder]


def _environment() -> Iterator[str]:
    yield "--clearenv"
    for name, value in {
        "HOME": "/tmp/work",
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(PACKAGE.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "LABSUPPORT_SANDBOX": "1",
    }.items():
        yield from ("--setenv", name, value)
