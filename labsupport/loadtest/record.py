"""What one request felt: the times at which its answer came, and what they amount to.

Right means: times are measured by the caller, from the moment at which the request was due. In an open loop
that is its arrival, not the moment at which a busy load generator came to send it; otherwise the waiting
that matters most is left out (the error known as coordinated omission).

Definitions (those of vLLM's `vllm bench serve` where it has one):
TTFT  from arrival to the first chunk with text in it. Chunks that only open an answer do not count, as in
      NVIDIA's AIPerf, the successor of GenAI-Perf.
ITL   gaps between consecutive chunks with text.
E2E   from arrival to the last chunk of the answer, the one that says why it ended.
TPOT  (E2E − TTFT) / (tokens − 1).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import msgspec

CountedBy = Literal["usage", "limit", "chunks"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Times are seconds since the run began.

    arrived: when it was due; sent: when it was really sent; ended: when its last byte, or its failure, came.
    text_times: when each chunk with text came.
    finished: when the last chunk with text or with a finish reason came; None if none did.
    output_tokens, counted_by: the answer's length by the server's own `usage`; without one the limit that was
        asked for, where the answer ended by it; without that the number of chunks.
    prompt_tokens, cached_tokens: by the server's usage; 0 where it gives none.
    finish_reason: `stop` or `length`; "" if the answer never ended.
    error: what went wrong, "" if nothing did. Equal faults have equal words, so that they can be counted.
    """

    arrived: float
    sent: float
    ended: float
    text_times: tuple[float, ...] = ()
    finished: float | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    counted_by: CountedBy = "usage"
    finish_reason: str = ""
    error: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether it was answered to the end."""
        return not self.error

    @property
    def ttft_seconds(self) -> float | None:
        """Time to first token; None if no text came."""
        return self.text_times[0] - self.arrived if self.text_times else None

    @property
    def itl_seconds(self) -> tuple[float, ...]:
        """Inter-token latencies, one less than there are chunks with text."""
        return tuple(later - earlier for earlier, later in pairwise(self.text_times))

    @property
    def e2e_seconds(self) -> float | None:
        """End to end; None if the answer did not finish."""
        return None if self.finished is None else self.finished - self.arrived

    @property
    def tpot_seconds(self) -> float | None:
        """Time per output token after the first; None where there is no second one."""
        if self.ttft_seconds is None or self.e2e_seconds is None or self.output_tokens < 2:
            return None
        return (self.e2e_seconds - self.ttft_seconds) / (self.output_tokens - 1)

    @property
    def has_a_chunk_per_token(self) -> bool:
        """Whether gaps between chunks are gaps between tokens.

        They are not where a server sends several tokens at once, or holds a token back that is no whole
        character yet. One chunk less is allowed for: an end token has no text.
        """
        return len(self.text_times) in (self.output_tokens, self.output_tokens - 1)
