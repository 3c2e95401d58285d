"""What machines of a reader's tier could reach at most: arithmetic on bandwidths that were printed and read.

Right means that no end of the range is a guess: each is a named device's memory bandwidth, from the hardware
sheet of `labsupport.anatomy`, divided by the bytes that one step has to read. A machine may lie outside; then
its memory is unlike that of the devices named.
"""

from __future__ import annotations

from dataclasses import dataclass

from labsupport.anatomy.spec_sheets import devices_of_tier
from labsupport.errors import LabsupportError


@dataclass(frozen=True)
class TierRange:
    """The most that the slowest and the fastest device of a tier allow, in steps/s, and their names."""

    tier: str
    low: float
    high: float
    low_device: str
    high_device: str


def decode_range(tier: str, *, bytes_read: float) -> TierRange:
    """Bandwidth / bytes of the devices of `tier` (`cpu`, `apple` or `gpu`): tokens/s of one stream, at most.

    `bytes_read` are those that one token has to read: the size of the weights. Raises `LabsupportError` for a
    tier without devices, or for bytes that are not above 0.
    """
    devices = devices_of_tier(tier)
    if not devices or bytes_read <= 0:
        raise LabsupportError(
            f"tier {tier!r} and {bytes_read!r} bytes", allowed="cpu, apple or gpu, and bytes above 0"
        )
    slow, fast = devices[0], devices[-1]
    return TierRange(
        tier=tier,
        low=slow.bandwidth_bytes_per_second / bytes_read,
        high=fast.bandwidth_bytes_per_second / bytes_read,
        low_device=slow.name,
        high_device=fast.name,
    )
