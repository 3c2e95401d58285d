"""The datasheet: what this computer is, what was measured of it, and what follows, in one value.

Right means: every number is detected, measured just now, computed from those two, or printed in a
vendor's sheet with its source; which of the four it is can be seen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labsupport.anatomy import hardware
from labsupport.anatomy.spec_sheets import HardwareSheet
from labsupport.machine import measure
from labsupport.machine.bounds import MODELS, Bound, bound
from labsupport.machine.detect import Machine, detect
from labsupport.machine.measure import MIB
from labsupport.machine.measurement import Measurement
from labsupport.machine.setup.session import cache_folder

GIB = 2**30
TIERS = {
    "cpu": "a computer without a GPU: everything in the course runs, at the speed of its memory",
    "apple": "an Apple computer: CPU and GPU share one memory, so what fits in memory fits on the GPU",
    "gpu": "an NVIDIA GPU: fast as long as the model fits into the GPU's own memory",
}
UNHURRIED_SECONDS = 10
MEMORY = "memory read"
VENDORS = ("m4-max", "rtx-4090", "h100-sxm")
"""One device of each of the other tiers, for comparison; from the vendors' sheets, not measured."""


@dataclass(frozen=True)
class Datasheet:
    """One computer on one page. In a notebook it shows itself as a picture with its numbers below."""

    made: str
    machine: Machine
    measurements: tuple[Measurement, ...]
    bounds: tuple[Bound, ...]
    vendors: tuple[HardwareSheet, ...]
    seconds: float

    def measured(self, name: str) -> Measurement:
        """The measurement of that name; raises KeyError if it was not made here."""
        return next(found for found in self.measurements if found.name == name)

    @property
    def memory_bytes_per_second(self) -> float:
        """The best bandwidth measured of the memory that decodes: the GPU's where there is one."""
        return bandwidth_of(self.measurements)

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {
            "made": self.made,
            "tier": self.machine.tier,
            "machine": asdict(self.machine),
            "measurements": [
                asdict(one) | {"median": one.median, "best": one.best, "spread": one.spread}
                for one in self.measurements
            ],
            "bounds": [asdict(one) for one in self.bounds],
            "vendors": [one.as_json() for one in self.vendors],
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        from labsupport.machine.sheet_text import text

        return text(self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        from labsupport.machine.sheet_picture import mime_bundle

        return mime_bundle(self)


def datasheet(*, quick: bool = False, folder: Path | None = None) -> Datasheet:
    """Measure this computer, in a few seconds if `quick`, and under twenty if not.

    `folder` is on the disk to measure, by default the course's cache. `quick` reads a smaller file and a
    smaller array, and leaves out bfloat16.
    """
    started = time.perf_counter()
    place = folder or cache_folder()
    machine = detect(place)
    measurements = [*measure.disk_read(place, file_bytes=(32 if quick else 128) * MIB)]
    array_bytes = (128 if quick else 256) * MIB
    measurements += [measure.memory_read(array_bytes=array_bytes), measure.matrix_product()]
    if not quick and time.perf_counter() - started < UNHURRIED_SECONDS:
        measurements += [measure.memory_copy(), measure.matrix_product(kind="bfloat16")]
    device = measure.accelerator()
    if device:
        measurements += [measure.memory_read(device), measure.matrix_product(device, "bfloat16")]
    if device == "cuda":
        measurements += [*measure.host_to_device(device)]
    memory = machine.gpus[0].memory_bytes if device == "cuda" and machine.gpus else machine.memory_bytes
    return Datasheet(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine,
        measurements=tuple(measurements),
        bounds=tuple(
            bound(name, memory_bytes=memory, bandwidth_bytes_per_second=bandwidth_of(measurements))
            for name in MODELS
        ),
        vendors=tuple(map(hardware, VENDORS)),
        seconds=time.perf_counter() - started,
    )


def bandwidth_of(measurements: Sequence[Measurement]) -> float:
    """Bytes/s of the memory measured last, which would decode; the best sample, because a bound must hold."""
    return [one.best for one in measurements if one.name.startswith(MEMORY)][-1] * measure.GB
