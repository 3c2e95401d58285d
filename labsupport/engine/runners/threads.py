"""How many threads a CPU runner takes, and how they wait for each other.

The threads of one step meet several times in every layer. One that sleeps at each meeting is woken too late;
one that spins until the other comes takes the core from whoever the other is waiting for, when HTTP, a
notebook or a load generator shares it. So they spin for somewhat longer than they wait where each has its
core, and then sleep. `benchmarks/README.md` shows what each gives ("What a step takes"). A count of
spins lasts as long as the processor's pauses: Intel's are of up to 140 cycles since Skylake, of about 10
before (Intel, 64 and IA-32 Architectures Optimization Reference Manual, 2.6.4), and elsewhere short too.

A token of a small model has too little to do for several threads, and even where decodes of many sequences
have more, they come faster than HTTP can pass them on, which needs a core for that. Those of a large model
are limited by how fast the weights come from memory, which few cores can use up; prompts are limited by
arithmetic, of which every core brings more. So a step with a prompt can have a count of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from labsupport.machine.detect import cpu_name

_MOST_USEFUL_THREADS = 8
NEARLY_AS_FAST = 1.1
LEAST_TRIES, MOST_TRIES, TRYING_SECONDS = 3, 20, 0.3
_SPIN_COUNT, _SPIN_COUNT_ON_INTEL = "5000", "200"


def waiting(environment: Mapping[str, str], *, processor: str = "") -> dict[str, str]:
    """How GNU's OpenMP is to wait: variables for a process that has not loaded it yet.

    Those that `environment` sets itself are left out, and so is the count where it asks for `ACTIVE` waits.
    `processor` is its name; without one, that of this machine.
    """
    wanted = {"OMP_WAIT_POLICY": "PASSIVE"}
    if environment.get("OMP_WAIT_POLICY", "PASSIVE").upper() == "PASSIVE":
        is_intel = "intel" in (processor or cpu_name()).lower()
        wanted["GOMP_SPINCOUNT"] = _SPIN_COUNT_ON_INTEL if is_intel else _SPIN_COUNT
    return {name: value for name, value in wanted.items() if name not in environment}


@dataclass(frozen=True, slots=True)
class ThreadPolicy:
    """Threads of a step that computes a single token, of one with a token for each of several sequences, and
    of one that computes a prompt."""

    single: int
    decode: int
    prompt: int

    @classmethod
    def of(cls, threads: int, prompt_threads: int) -> ThreadPolicy:
        """From the levers of `EngineConfig`; 0 takes what suits this machine, and the same for prompts."""
        decode = thread_count(threads)
        return cls(decode, decode, thread_count(prompt_threads) if prompt_threads else decode)

    def tried(
        self, seconds_with: Callable[[int, int], float], *, sequences: int, spare_cores: int = 0
    ) -> ThreadPolicy:
        """With the fewest threads for decodes that are nearly as fast as all: for one token, then for one of
        each of `sequences`, where `spare_cores` threads less count as all.

        `seconds_with(threads, tokens)` is what such a step takes. Where one token takes all threads, many do
        too. For small models: what a step of a large one takes says more about the machine's other guests.
        """
        single = _fewest(self.decode, lambda threads: seconds_with(threads, 1))
        if single == self.decode:
            return self
        most = max(1, self.decode - spare_cores)
        decode = _fewest(most, lambda threads: seconds_with(threads, sequences))
        return replace(self, single=min(single, decode), decode=decode)

    def for_step(self, row_lengths: Sequence[int]) -> int:
        """How many threads a step takes, by the tokens of each of its rows."""
        if max(row_lengths) > 1:
            return self.prompt
        return self.decode if len(row_lengths) > 1 else self.single


def _fewest(threads: int, seconds_with: Callable[[int], float]) -> int:
    fewest = threads
    while fewest > 1:
        all_of_them, fewer = _quickest_by_turns((threads, fewest // 2), seconds_with)
        if fewer > NEARLY_AS_FAST * all_of_them:
            break
        fewest //= 2
    return fewest


def _quickest_by_turns(counts: Sequence[int], seconds_with: Callable[[int], float]) -> list[float]:
    """The quickest step with each count. By turns, for a machine that has just read a model is not yet as
    fast as it will be, and often, for what disturbs a step disturbs several threads more than one."""
    quickest, spent, tries = [math.inf for _ in counts], 0.0, 0
    while tries < LEAST_TRIES or (tries < MOST_TRIES and spent < TRYING_SECONDS):
        took = [seconds_with(count) for count in counts]
        quickest = [min(pair) for pair in zip(quickest, took, strict=True)]
        spent, tries = spent + sum(took), tries + 1
    return quickest


def thread_count(wanted: int) -> int:
    """`wanted`, or for 0 what suits this machine; never more than the cores this process may use."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = min(psutil.cpu_count(logical=False) or usable, usable)
    if wanted:
        return min(wanted, usable)
    return min(_MOST_USEFUL_THREADS, physical)
