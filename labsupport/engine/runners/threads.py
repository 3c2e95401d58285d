"""How many threads a CPU runner takes.

The threads of one step wait for each other at every layer, so a step is as slow as its slowest thread, and
one that shares its core with HTTP, a notebook or a load generator holds up all. So one core is left to them.
(On two cores that costs throughput while nothing else runs; `--threads 2` takes both.)
"""

from __future__ import annotations

import os

_MOST_USEFUL_THREADS = 8


def thread_count(wanted: int) -> int:
    """`wanted`, or for 0 what suits this machine; never more than the cores this process may use."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = min(psutil.cpu_count(logical=False) or usable, usable)
    if wanted:
        return min(wanted, usable)
    return max(1, min(_MOST_USEFUL_THREADS, physical - 1))
