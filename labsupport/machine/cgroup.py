"""How much memory and how many cores a container leaves us, which the rest of the system does not say.

Inside a container, `/proc/meminfo` and the number of CPUs are the host's. The kernel's control groups hold
the limits that will really be enforced (https://docs.kernel.org/admin-guide/cgroup-v2.html).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROCESS = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")
NO_LIMIT_BYTES = 2**60
"""Version 1 writes "no limit" as a number close to 2⁶³; no computer has 2⁶⁰ bytes."""


def memory_limit_bytes(*, process: Path = PROCESS, mount: Path = MOUNT) -> int | None:
    """The smallest memory limit that any enclosing group sets, or None if there is none."""
    limits = []
    for folder in _folders(process, mount, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            if text.isdigit() and int(text) < NO_LIMIT_BYTES:
                limits.append(int(text))
    return min(limits, default=None)


def core_limit(*, process: Path = PROCESS, mount: Path = MOUNT) -> float | None:
    """How many cores' worth of time the enclosing groups allow (1.5 is possible), or None."""
    limits = []
    for folder in _folders(process, mount, "cpu"):
        text = _read(folder / "cpu.max") or " ".join(
            (_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))
        )
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _folders(process: Path, mount: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's group and of its parents, for both versions of control groups.

    In a container the path that the process file names is often the host's and not visible; its nearest
    parent that is visible, the mount itself, then holds the container's limits.
    """
    for line in _read(process).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            top = mount
        elif controller in controllers.split(","):
            top = next((mount / name for name in (controllers, controller) if (mount / name).is_dir()), mount)
        else:
            continue
        folder = top / path.lstrip("/")
        yield from (place for place in (folder, *folder.parents) if place.is_relative_to(top))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
