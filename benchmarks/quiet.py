"""Whether this machine is quiet enough for a measurement to mean something.

On few cores a busy neighbour does not make everything a little slower: threads that wait for each other at
every layer wait for the one that was put off, and it does so to each contender differently. So a run is
refused on a busy machine, and during each run the processor time of everybody else is written down.
"""

from __future__ import annotations

import time
from typing import Self

import psutil

from labsupport.errors import LabsupportError

BUSY_SHARE = 0.1
"""Of one core, used by others: more disturbs."""
LOOK_SECONDS = 2.0


class OtherWork:
    """How much of one core other processes than ours used within a `with` block: `share`, 0.1 is a tenth.

    Ours are this process and all that it started. What started and ended within the block counts as ours
    only if it was waited for, as load processes are.
    """

    share = 0.0

    def __enter__(self) -> Self:
        self._began, self._busy, self._own = time.monotonic(), _busy_seconds(), own_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        elapsed = time.monotonic() - self._began
        others = (_busy_seconds() - self._busy) - (own_seconds() - self._own)
        self.share = max(0.0, others / elapsed)


def own_seconds() -> float:
    """Processor time of this process, of its children, and of those that it has waited for."""
    own = psutil.Process()
    times = own.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in own.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return float(total)


def refuse_if_busy(*, anyway: bool = False) -> bool:
    """Whether the machine is quiet. Raises LabsupportError if it is not, unless told to go on `anyway`."""
    with OtherWork() as others:
        busy = _busiest(LOOK_SECONDS)
    if others.share < BUSY_SHARE:
        return True
    names = "; ".join(f"{name} (process {pid}) {share:.0%} of a core" for share, name, pid in busy[:5])
    problem = f"this machine is busy: others use {others.share:.0%} of a core. {names}".rstrip()
    if not anyway:
        raise LabsupportError(
            problem,
            allowed=f"less than {BUSY_SHARE:.0%} of a core",
            remedy="Wait for them or stop them. --anyway measures all the same, and marks the results.",
        )
    print(f"WARNING: {problem}. These results mean little, and are marked as such.", flush=True)
    return False


def _busiest(seconds: float) -> list[tuple[float, str, int]]:
    """Processes of others by their share of a core within the next seconds, the busiest first."""
    before = {process.pid: (process, _seconds(process)) for process in psutil.process_iter(["name"])}
    time.sleep(seconds)
    ours = {psutil.Process().pid, *(child.pid for child in psutil.Process().children(recursive=True))}
    found = [
        ((_seconds(process) - used) / seconds, process.info["name"] or "?", pid)
        for pid, (process, used) in before.items()
        if pid not in ours
    ]
    return sorted((one for one in found if one[0] > BUSY_SHARE / 2), reverse=True)


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))
