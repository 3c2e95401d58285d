"""How many threads a CPU runner takes.

One thread per physical core computes fastest, but the cores are shared: with HTTP, a load generator, a
notebook. Beyond two cores, one is left to them. With two, both compute, and the passive wait policy (set in
`llama`) gives way where a spinning barrier would not.
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
    return max(1, min(_MOST_USEFUL_THREADS, physical - 1 if physical > 2 else physical))
