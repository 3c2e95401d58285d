"""What the computer is said to be agrees with the computer, and limits set from outside count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labsupport.machine import cgroup, detect


def test_the_description_agrees_with_the_system(tmp_path: Path) -> None:
    machine = detect.detect(tmp_path)

    assert machine.cpu
    assert 1 <= machine.usable_cores <= machine.logical_cores
    assert 1 <= machine.physical_cores <= machine.logical_cores
    assert 0 < machine.available_memory_bytes <= machine.memory_bytes
    assert machine.disk_free_bytes > 0
    if sys.platform == "linux":
        pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        assert machine.memory_limited_by_container or machine.memory_bytes == pytest.approx(pages, rel=0.01)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU masks: use Linux")
def test_a_cpu_mask_counts() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    program += "from labsupport.machine.detect import usable_cores; print(usable_cores())"

    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout

    assert printed == "1\n"


def test_detecting_does_not_import_torch() -> None:
    program = (
        "import sys; from labsupport.machine.detect import detect; detect(); print('torch' in sys.modules)"
    )

    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout

    assert printed == "False\n"


def test_version_2_groups_give_the_smallest_limit_of_all_that_enclose_us(tmp_path: Path) -> None:
    process, inner = tmp_path / "self", tmp_path / "fs" / "a" / "b"
    inner.mkdir(parents=True)
    process.write_text("0::/a/b\n")
    (inner / "memory.max").write_text("max\n")
    (inner / "cpu.max").write_text("150000 100000\n")
    (inner.parent / "memory.max").write_text(f"{3 * 2**30}\n")
    (inner.parent / "cpu.max").write_text("max 100000\n")

    assert cgroup.memory_limit_bytes(process=process, mount=tmp_path / "fs") == 3 * 2**30
    assert cgroup.core_limit(process=process, mount=tmp_path / "fs") == 1.5


def test_version_1_groups_are_read_and_their_no_limit_is_none(tmp_path: Path) -> None:
    process, mount = tmp_path / "self", tmp_path / "fs"
    process.write_text("5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n")
    (mount / "memory").mkdir(parents=True)
    (mount / "cpu,cpuacct").mkdir()
    (mount / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (mount / "cpu,cpuacct" / "cpu.cfs_quota_us").write_text("200000\n")
    (mount / "cpu,cpuacct" / "cpu.cfs_period_us").write_text("100000\n")

    assert cgroup.memory_limit_bytes(process=process, mount=mount) is None
    assert cgroup.core_limit(process=process, mount=mount) == 2.0

    (mount / "memory" / "memory.limit_in_bytes").write_text("1073741824\n")
    assert cgroup.memory_limit_bytes(process=process, mount=mount) == 2**30


def test_no_control_groups_mean_no_limit(tmp_path: Path) -> None:
    assert cgroup.memory_limit_bytes(process=tmp_path / "none", mount=tmp_path) is None
    assert cgroup.core_limit(process=tmp_path / "none", mount=tmp_path) is None
