"""What this computer does: read its disk and memory, multiply matrices, and move data to a GPU.

Every rate is counted in bytes or operations that really happened: a copy reads and writes, so it moves its
bytes twice; a matrix product of n × n is 2n³ operations. Bandwidths are in GB/s, with GB = 10⁹ bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labsupport.machine.measurement import Measurement, durations, nothing_to_wait_for

GB = 1e9
MIB = 2**20
READ_BYTES = 4 * MIB
"""One read call: large enough that the calls themselves cost nothing."""


def disk_read(
    folder: Path, *, file_bytes: int = 256 * MIB, repeats: int = 3
) -> tuple[Measurement, Measurement]:
    """GB/s at which a file is read from the disk (cold) and from the page cache (warm), in that order.

    The file holds random bytes, which no disk can compress. Before each cold read the kernel is asked to
    forget the file; on Linux, where the kernel counts what really came from storage, the note says how much
    did. Raises OSError if the folder has no room.
    """
    cold, warm, from_storage = [], [], []
    with _random_file(folder, file_bytes) as path:
        for _ in range(repeats):
            _forget(path)
            before = _storage_bytes()
            cold.append(file_bytes / _seconds_to_read(path, cached=False) / GB)
            from_storage.append((_storage_bytes() - before) / file_bytes)
            _seconds_to_read(path, cached=True)
            warm.append(file_bytes / _seconds_to_read(path, cached=True) / GB)
    share = min(1.0, min(from_storage))
    note = f"{share:.0%} came from storage" if _storage_bytes() else "the system does not say what was cached"
    return (
        Measurement("disk, cold", "GB/s", tuple(cold), note),
        Measurement("disk, in the page cache", "GB/s", tuple(warm)),
    )


def memory_read(device: str = "cpu", *, array_bytes: int = 512 * MIB) -> Measurement:
    """GB/s at which `device` reads a matrix to multiply it by a vector, which is what decoding a token does.

    `array_bytes` must be far more than the processor's caches hold.
    """
    import torch

    kind = torch.float32 if device == "cpu" else torch.bfloat16
    columns = 8192
    matrix = torch.ones((array_bytes // kind.itemsize // columns, columns), dtype=kind, device=device)
    vector, product = (
        torch.ones(columns, dtype=kind, device=device),
        torch.empty(len(matrix), dtype=kind, device=device),
    )
    seconds = durations(lambda: torch.mv(matrix, vector, out=product), synchronize=_synchronizer(device))
    moved = matrix.numel() * kind.itemsize
    return Measurement(_named("memory read", device), "GB/s", tuple(moved / one / GB for one in seconds))


def memory_copy(device: str = "cpu", *, array_bytes: int = 256 * MIB) -> Measurement:
    """GB/s at which `device` copies its memory: a byte is read and written, and so counts twice."""
    import torch

    source = torch.ones(array_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = durations(lambda: target.copy_(source), synchronize=_synchronizer(device))
    return Measurement(
        _named("memory copy", device), "GB/s", tuple(2 * array_bytes / one / GB for one in seconds)
    )


def matrix_product(device: str = "cpu", kind: str = "float32", *, budget_seconds: float = 1.0) -> Measurement:
    """GFLOP/s of multiplying two square matrices of numbers of `kind` (`float32`, `bfloat16`, …).

    The side doubles from 256 for as long as a run stays under a tenth of the budget: a processor without
    instructions for the kind would take minutes for the size that a GPU needs.
    """
    import torch

    synchronize = _synchronizer(device)
    side, most = 128, 2048 if device == "cpu" else 16384
    spent = 0.0
    while side < most and spent * 8 < budget_seconds / 10:
        side *= 2
        left = torch.ones((side, side), dtype=getattr(torch, kind), device=device)
        left @ left
        synchronize()
        before = time.perf_counter()
        left @ left
        synchronize()
        spent = time.perf_counter() - before
    seconds = durations(lambda: left @ left, synchronize=synchronize, budget_seconds=budget_seconds)
    rates = tuple(2 * side**3 / one / GB for one in seconds)
    return Measurement(_named(f"matrix product, {kind}", device), "GFLOP/s", rates, f"{side} × {side}")


def host_to_device(device: str, *, array_bytes: int = 256 * MIB) -> tuple[Measurement, Measurement]:
    """GB/s from pinned memory, which the device reads by itself, to `device` and back."""
    import torch

    pinned = torch.ones(array_bytes, dtype=torch.uint8).pin_memory()
    there = torch.empty(array_bytes, dtype=torch.uint8, device=device)
    wait = _synchronizer(device)
    out = durations(lambda: there.copy_(pinned, non_blocking=True), synchronize=wait)
    back = durations(lambda: pinned.copy_(there, non_blocking=True), synchronize=wait)
    return (
        Measurement("to the GPU", "GB/s", tuple(array_bytes / one / GB for one in out)),
        Measurement("from the GPU", "GB/s", tuple(array_bytes / one / GB for one in back)),
    )


def accelerator() -> str | None:
    """The device that torch would compute on besides the CPU (`cuda`, `mps`), or None."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def _synchronizer(device: str) -> Any:
    import torch

    waits: dict[str, Any] = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
    return waits.get(device, nothing_to_wait_for)


def _named(what: str, device: str) -> str:
    return what if device == "cpu" else f"{what}, {device}"


@contextlib.contextmanager
def _random_file(folder: Path, file_bytes: int) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="disk-read-") as file:
        for _ in range(file_bytes // READ_BYTES):
            file.write(os.urandom(READ_BYTES))
        file.flush()
        os.fsync(file.fileno())
        yield Path(file.name)


def _forget(path: Path) -> None:
    """Ask the kernel to drop the file from the page cache, where there is a call for it."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _seconds_to_read(path: Path, *, cached: bool) -> float:
    buffer = bytearray(READ_BYTES)
    with path.open("rb", buffering=0) as file:
        if not cached and hasattr(fcntl, "F_NOCACHE"):  # macOS has no posix_fadvise
            fcntl.fcntl(file.fileno(), fcntl.F_NOCACHE, 1)
        before = time.perf_counter()
        while file.readinto(buffer):
            pass
        return time.perf_counter() - before


def _storage_bytes() -> int:
    """Bytes that this process has had fetched from storage so far; 0 where the system does not count them."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/io").read_text().splitlines():
            if line.startswith("read_bytes:"):
                return int(line.split()[1])
    return 0
