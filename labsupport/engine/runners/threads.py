"""How many threads a CPU runner takes, and how they wait for each other.

The threads of one step meet several times in every layer. One that sleeps at each meeting is woken too late;
one that spins until the other comes takes the core from whoever the other is waiting for, when HTTP, a
notebook or a load generator shares it. So they spin for a few microseconds, longer than they wait where each
has its core, and then sleep. `benchmarks/README.md` shows what each gives ("What a step takes"). A count of
spins lasts as long as the processor's pauses: Intel's are of up to 140 cycles since Skylake, of about 10
before (Intel, 64 and IA-32 Architectures Optimization Reference Manual, 2.6.4), and elsewhere short too.

Decodes of a small model have too little to do for several threads (`pocket`, 16 sequences: 5.3 ms with one,
5.1 ms with two), and HTTP can use the other core. Those of a large one are limited by how fast the weights
come from memory, which few cores can use up; prompts are limited by arithmetic, of which every core brings
more. So a step with a prompt can have a count of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from labsupport.machine.detect import cpu_name

_MOST_USEFUL_THREADS = 8
NEARLY_AS_FAST = 1.1
_SPIN_COUNT, _SPIN_COUNT_ON_INTEL = "1000", "200"


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

    def tried(self, seconds_with: Callable[[int, int], float], *, sequences: int) -> ThreadPolicy:
        """With the fewest threads for decodes that are nearly as fast as all: for one token, then for one of
        each of `sequences`.

        `seconds_with(threads, tokens)` is what such a step takes. Of a small model's token little is left to
        share out, and each thread less is a core for HTTP. Where one token takes all threads, many do too.
        """
        single = _fewest(self.decode, lambda threads: seconds_with(threads, 1))
        if single == self.decode:
            return self
        decode = _fewest(self.decode, lambda threads: seconds_with(threads, sequences))
        return replace(self, single=min(single, decode), decode=decode)

    def for_step(self, row_lengths: Sequence[int]) -> int:
        """How many threads a step takes, by the tokens of each of its rows."""
        if max(row_lengths) > 1:
            return self.prompt
        return self.decode if len(row_lengths) > 1 else self.single


def _fewest(threads: int, seconds_with: Callable[[int], float]) -> int:
    limit = NEARLY_AS_FAST * seconds_with(threads)
    while threads > 1 and seconds_with(threads // 2) <= limit:
        threads //= 2
    return threads


def thread_count(wanted: int) -> int:
    """`wanted`, or for 0 what suits this machine; never more than the cores this process may use."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = min(psutil.cpu_count(logical=False) or usable, usable)
    if wanted:
        return min(wanted, usable)
    return min(_MOST_USEFUL_THREADS, physical)
