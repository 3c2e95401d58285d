"""Whether there is an NVIDIA GPU, however it shows, and what its driver says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from labsupport.machine import nvidia


def driver(folder: Path, body: str) -> None:
    (folder / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "bin" / "nvidia-smi").chmod(0o755)


def test_a_gpu_is_seen_by_its_device_node_by_the_drivers_list_or_by_nvidia_smi(no_gpu: Path) -> None:
    (no_gpu / "dev" / "nvidiactl").touch()
    assert not nvidia.is_present()

    driver(no_gpu, "echo 'GPU 0: Some GPU (UUID: GPU-1)'")
    assert nvidia.is_present()
    driver(no_gpu, "echo 'No devices were found'; exit 6")
    assert not nvidia.is_present()

    (no_gpu / "gpus" / "0000:01:00.0").mkdir()
    assert nvidia.is_present()
    (no_gpu / "gpus" / "0000:01:00.0").rmdir()
    (no_gpu / "dev" / "nvidia0").touch()
    assert nvidia.is_present()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "echo 'NVIDIA H100 80GB HBM3, 81559, 550.54, 9.0'",
            (nvidia.Gpu("NVIDIA H100 80GB HBM3", 81559 * 2**20, "550.54", "9.0"),),
        ),
        ("echo 'No devices were found'", ()),
        ("echo 'NVIDIA-SMI has failed' >&2; exit 9", ()),
    ],
)
def test_gpus_are_what_the_driver_lists(body: str, expected: tuple[nvidia.Gpu, ...], no_gpu: Path) -> None:
    driver(no_gpu, body)

    assert nvidia.gpus() == expected
