"""How many threads a CPU runner takes.

The threads of one step wait for each other at every layer, so a step is as slow as its slowest thread, and
one that shares its core with HTTP, a notebook or a load generator holds up all. So one core is left to them.
(On two cores that costs throughput while nothing else runs; `--threads 2` takes both.) And threads that wait
sleep (`OMP_WAIT_POLICY=PASSIVE`, set where the process starts), for those that spin take the cores from
whoever they are waiting for.

A single token is limited by how fast the weights come from memory, which few cores can use up; prompts are
limited by arithmetic, of which every core brings more. So a step with a prompt can have a count of its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

_MOST_USEFUL_THREADS = 8


@dataclass(frozen=True, slots=True)
class ThreadPolicy:
    """Threads of a step in which every sequence has one token, and of one that computes a prompt."""

    decode: int
    prompt: int

    @classmethod
    def of(cls, threads: int, prompt_threads: int) -> ThreadPolicy:
        """From the levers of `EngineConfig`; 0 takes what suits this machine, and the same for prompts."""
        decode = thread_count(threads)
        return cls(decode, thread_count(prompt_threads) if prompt_threads else decode)

    def for_step(self, computes_prompt: bool) -> int:
        """How many threads a step takes."""
        return self.prompt if computes_prompt else self.decode


def thread_count(wanted: int) -> int:
    """`wanted`, or for 0 what suits this machine; never more than the cores this process may use."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = min(psutil.cpu_count(logical=False) or usable, usable)
    if wanted:
        return min(wanted, usable)
    return max(1, min(_MOST_USEFUL_THREADS, physical - 1))
