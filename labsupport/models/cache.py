"""The cache on this computer: where it is, and how a file gets into it whole or not at all.

A file is written under another name and renamed when it is complete, so that an interrupted run or a full
disk leaves nothing that looks finished. One lock per product keeps two processes from making the same thing
twice.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from labsupport.errors import LabsupportError

_CHUNK_BYTES = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFullError(LabsupportError):
    """There is not enough room for what was asked."""


class UnusableDirectoryError(LabsupportError):
    """A directory of the cache cannot be made, read or written."""


def cache_directory() -> Path:
    """`LABSUPPORT_CACHE`, else `labsupport` below `XDG_CACHE_HOME`, else `~/.cache/labsupport`."""
    chosen = os.environ.get("LABSUPPORT_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "labsupport"


def require_free(directory: Path, needed_bytes: int) -> None:
    """Raise `DiskFullError` if the disk that holds `directory` has less than `needed_bytes` free."""
    with usable(directory):
        directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise DiskFullError(
            f"This needs {needed_bytes / 1e9:.1f} GB of disk, and {directory} has {free / 1e9:.1f} GB free.",
            remedy="Free some space, or set LABSUPPORT_CACHE to a directory on a larger disk.",
        )


@contextmanager
def usable(directory: Path) -> Iterator[None]:
    """Turn whatever the system has against a directory into an error that says what to do."""
    try:
        with full_disk_explained(directory):
            yield
    except OSError as error:
        raise UnusableDirectoryError(
            f"{directory} cannot be made or written: {error.strerror or error}.",
            remedy="Set LABSUPPORT_CACHE to a directory that you can write to.",
        ) from None


@contextmanager
def full_disk_explained(directory: Path) -> Iterator[None]:
    """Turn the system's "no space left" into an error that says what to do."""
    try:
        yield
    except OSError as error:
        # numpy's `tofile` tells of a write that was cut short without the system's reason.
        cut_short = error.errno is None and "written" in str(error)
        if error.errno not in _NO_ROOM and not cut_short:
            raise
        raise DiskFullError(
            f"The disk that holds {directory} is full, or a limit on its use is reached "
            f"({error.strerror or error}); nothing half-written was kept as finished.",
            remedy="Free some space, or set LABSUPPORT_CACHE to a directory on a larger disk, and try again.",
        ) from None


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A path to write to; it becomes `target` when the block ends well and is removed when it does not.

    The caller holds the lock of `target`, so that the unfinished file of an earlier, killed run may be
    replaced.
    """
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        with full_disk_explained(target.parent):
            yield unfinished
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def locked(product: Path) -> Iterator[None]:
    """Hold the lock of `product`; a second process waits here until the first has made it."""
    lock = _lock_of(product)
    with usable(product.parent):
        product.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def remove_unless_busy(product: Path) -> None:
    """Remove a product and what lies beside it, its lock excepted; one that is being made just now stays.

    A program that has it open keeps what it has: the system frees the bytes when the last one closes it.
    """
    lock = _lock_of(product)
    with suppress(OSError), lock.acquire(timeout=0):
        for file in product.parent.glob(product.name + "*"):
            if str(file) != lock.lock_file:
                file.unlink(missing_ok=True)


def _lock_of(product: Path) -> FileLock:
    return FileLock(product.with_name(product.name + ".lock"))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
