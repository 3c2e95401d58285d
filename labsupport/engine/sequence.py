"""One request's state. Right means: whatever can be derived is derived, so that it cannot be out of step."""

from __future__ import annotations

from dataclasses import dataclass, field

from labsupport.engine.messages import FinishReason, SamplingParams


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """A prompt on its way to an answer.

    order: place in the queue among those of its key (or of all, see `waiting`); lower first, never equal
        between two sequences.
    key: name of the API key that asked; requests without one are those of "".
    priority: 0 is usual; a higher number gives way. Already part of `order`.
    tokens: the prompt and what has been generated.
    slot: where its cells are; None while it waits.
    place: its rank among those that were let in, lower first: see `seniority`, which alone writes it.
    arrived_after: how many had been let in when it arrived.
    num_computed: how many of its tokens have their keys and values in the cache.
    num_ever_computed: the most that this has been; up to there, tokens are computed again.
    num_cached: how many prompt tokens were taken from another sequence at first admission.
    arrived, admitted: when it was submitted and when it first ran, in seconds of one clock.
    """

    request_id: str
    tokens: list[int]
    params: SamplingParams
    seed: int
    order: tuple[float, int]
    key: str = ""
    priority: int = 0
    num_prompt: int = field(init=False)
    slot: int | None = None
    place: tuple[float, int] = (0.0, 0)
    arrived_after: int = 0
    num_computed: int = 0
    num_ever_computed: int = 0
    num_cached: int = 0
    arrived: float = 0.0
    admitted: float | None = None
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        self.num_prompt = len(self.tokens)

    @property
    def queue_seconds(self) -> float:
        """How long it waited before it first ran."""
        return 0.0 if self.admitted is None else self.admitted - self.arrived

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def num_remaining(self) -> int:
        """Tokens still to generate, at most."""
        return self.params.max_tokens - self.num_generated

    @property
    def num_uncomputed(self) -> int:
        return len(self.tokens) - self.num_computed

    @property
    def is_decoding(self) -> bool:
        """Whether its next step is one token long."""
        return self.num_uncomputed == 1

    @property
    def worst_case_cells(self) -> int:
        """Cells it needs if it runs to `max_tokens`; the last token's keys and values are never needed."""
        return self.num_prompt + self.params.max_tokens - 1
