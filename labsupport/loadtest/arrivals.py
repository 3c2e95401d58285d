"""When requests are sent: by callers who wait for their answers, or by a clock that waits for nobody.

A closed loop can never overload a server: when answers slow down, so do the questions. An open loop can,
and that is how the public behaves. So a knee is looked for with `Closed`, and a promise to users is tested
with `Poisson` or `Gamma`.
Source: the gamma parametrisation, with shape = burstiness and mean 1 / rate, is that of vLLM's
`vllm bench serve --burstiness`. (Its rescaling of the gaps, to end exactly on time, is not taken over: it
makes the gaps depend on each other.)
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from labsupport.errors import LabsupportError


@dataclass(frozen=True)
class Closed:
    """`clients` callers, each of whom asks again as soon as it was answered."""

    clients: int

    kind: ClassVar[str] = "closed"

    def __post_init__(self) -> None:
        if self.clients < 1:
            raise LabsupportError(f"a closed loop of {self.clients} clients", allowed="1 or more")

    def __str__(self) -> str:
        return f"closed loop, {self.clients} client{'s' if self.clients > 1 else ''}"


@dataclass(frozen=True)
class Gamma:
    """Requests at `per_second` on average, whether or not earlier ones were answered.

    burstiness: the shape of the gamma distribution of the gaps. 1 is a Poisson process, less comes in bursts
        (the gaps' coefficient of variation is 1/√burstiness), more is more even; infinity is a metronome.
    """

    per_second: float
    burstiness: float = 1.0

    kind: ClassVar[str] = "open"

    def __post_init__(self) -> None:
        if not 0 < self.per_second < math.inf:
            raise LabsupportError(f"{self.per_second} requests a second", allowed="a finite rate over 0")
        if not self.burstiness > 0:
            raise LabsupportError(f"a burstiness of {self.burstiness}", allowed="a number over 0")

    def times(self, chance: random.Random) -> Iterator[float]:
        """Seconds from the start at which requests arrive, without end. The first gap is drawn too."""
        mean_gap_seconds = 1 / self.per_second
        if math.isinf(self.burstiness):
            return (mean_gap_seconds * number for number in itertools.count(1))
        scale = mean_gap_seconds / self.burstiness
        return itertools.accumulate(chance.gammavariate(self.burstiness, scale) for _ in itertools.repeat(0))

    def __str__(self) -> str:
        return f"open loop, {self.per_second:g} requests/s, burstiness {self.burstiness:g}"


class Poisson(Gamma):
    """Requests that know nothing of each other, `per_second` on average: exponential gaps."""

    def __init__(self, per_second: float) -> None:
        super().__init__(per_second, 1.0)

    def __str__(self) -> str:
        return f"open loop, Poisson, {self.per_second:g} requests/s"


Arrivals = Closed | Gamma
