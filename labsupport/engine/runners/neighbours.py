"""How many threads decodes take while other processes use the cores.

The threads of a step meet several times in every layer. Where a notebook or a load generator takes a core
away, all wait for the one that was put off, so fewer threads can be faster (`benchmarks/README.md`, "A core
less"). Nobody tells the engine, but its own steps do: they take longer than they did.

Right means: alone, all threads are used; beside a neighbour, as many as are fastest, after a few dozen steps;
and all of them again a few hundred steps after it has gone. What is found by trying costs some steps that are
slow, so what was of no use is tried less and less often.
"""

from __future__ import annotations

import statistics

WINDOW = 6
"""Steps that say how fast a count is: their median."""
SLOW, BETTER = 1.5, 0.9
FIRST_PAUSE, LONGEST_PAUSE = 8, 160
"""Windows between two trials; doubled whenever one was of no use."""
_FORGETTING = 1.002
"""What is usual grows by so much a step: contexts become longer."""


class DecodeThreads:
    """The number of threads for steps in which each sequence decodes one token; `most` at first."""

    def __init__(self, most: int) -> None:
        self.count = self._most = most
        self._usual: dict[int, float] = {}  # seconds with all threads, by the number of sequences
        self._recent: list[float] = []
        self._settled = 1.0  # how slow the count was when it was chosen
        self._trial: tuple[int, float] | None = None  # the count before it, and how slow that was
        self._was_slow = False
        self._pause, self._next_pause = 0, FIRST_PAUSE

    def took(self, sequences: int, seconds: float) -> None:
        """Learn from a step of so many sequences that ran with `count` threads."""
        if self.count == self._most:
            self._usual[sequences] = min(_FORGETTING * self._usual.get(sequences, seconds), seconds)
        if sequences not in self._usual:
            return
        self._recent.append(seconds / self._usual[sequences])
        if len(self._recent) == WINDOW:
            slowness = statistics.median(self._recent)
            self._recent.clear()
            self._decide(slowness)

    def _decide(self, slowness: float) -> None:
        is_slow, was_slow = slowness > SLOW * self._settled, self._was_slow
        self._was_slow = is_slow
        if self._trial:
            before, slowness_before = self._trial
            self._trial = None
            if slowness < BETTER * slowness_before:
                self._settled = 1.0 if self.count == self._most else slowness
                self._next_pause = FIRST_PAUSE
            else:
                self.count = before
                self._next_pause = min(2 * self._next_pause, LONGEST_PAUSE)
            self._pause = self._next_pause
        elif self._pause:
            self._pause -= 1
        elif is_slow and self.count > 1:
            if was_slow:  # twice: a hiccup is no neighbour
                self._try(self.count // 2, slowness)
        elif self.count < self._most:
            self._try(self.count + 1, slowness)

    def _try(self, count: int, slowness: float) -> None:
        self._trial = self.count, slowness
        self.count = count
