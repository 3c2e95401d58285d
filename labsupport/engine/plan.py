"""What a scheduler asks of a runner for one step, and what the runner says it can do.

Right means: a plan is complete. A runner that executes its cache operations in order and then its rows needs
to know nothing about requests, and a scheduler needs to know nothing about tensors.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from labsupport.engine.messages import SamplingParams
from labsupport.engine.sequence import Sequence

DEFAULT_STEP_TOKENS = 128
"""Most tokens in a step of a runner that knows no better."""

PrefixSharing = Literal["alias", "copy", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLimits:
    """What a device can do.

    max_slots: sequences that it can tell apart, kept prefixes included.
    cells: tokens' worth of KV cache in all slots together.
    context_tokens: the longest sequence.
    step_tokens: most tokens in one step.
    vocabulary_size: token ids run from 0 to this, exclusive.
    prefix_sharing: whether a prefix of one slot can become another's without using cells (`alias`), by
        copying them (`copy`), or not at all.
    grammars: whether drawing can be held to a grammar.
    """

    max_slots: int
    cells: int
    context_tokens: int
    step_tokens: int
    vocabulary_size: int
    prefix_sharing: PrefixSharing = "none"
    grammars: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """Make the first `length` tokens of slot `source` the empty slot `target`'s too, in the same cells."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Like Share, into cells of the target's own."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Free:
    """Empty a slot."""

    slot: int


CacheOperation = Share | Copy | Free


@dataclass(frozen=True, slots=True)
class Draw:
    """How to draw the token that follows a row.

    index: how many tokens were generated before.
    tokens: all tokens so far; the last `index` of them were generated. The sequence's own list, not a copy:
        read it during the step, and do not change it.
    """

    params: SamplingParams
    seed: int
    index: int
    tokens: Tokens[int] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens of one slot to compute in this step, at positions `start`, `start` + 1, …

    num_again: how many of them, the first ones, were computed before and lost with the sequence's memory.
    """

    slot: int
    start: int
    tokens: list[int]
    draw: Draw | None
    num_again: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One step: the cache operations in order, then the rows.

    sequences: the sequence of each row, for the scheduler's own use.
    unchanged_for: for how many steps, this one included, the rows stay the same, each one token further,
        without cache operations, if nobody sends a message and no sequence ends by what it says. At least 1.
    """

    operations: tuple[CacheOperation, ...]
    rows: tuple[Row, ...]
    sequences: tuple[Sequence, ...]
    unchanged_for: int = 1

    def __bool__(self) -> bool:
        return bool(self.operations or self.rows)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawn token; the log probabilities (natural) where they were asked for, `top` likeliest first."""

    token: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


class CellsExhausted(Exception):
    """The device found no room for a step's tokens; its cells are as after the plan's cache operations."""


@runtime_checkable
class ReadsGrammars(Protocol):
    """A runner that can read a grammar before the step in which an answer begins."""

    def read_grammar(self, text: str) -> object:
        """Read it, in any thread. While the result is held, answers in it begin without reading it again.

        Raises ValueError if it cannot be read.
        """
        ...


class Runner(Protocol):
    """The device. `end_tokens` end a sequence; `piece` gives a token's bytes (none for control tokens)."""

    limits: RunnerLimits
    end_tokens: frozenset[int]

    def piece(self, token: int) -> bytes: ...

    def step(self, plan: Plan) -> list[Drawn]:
        """Execute a plan; one `Drawn` per row that has a `draw`, in order. Raises CellsExhausted."""
        ...

    def close(self) -> None: ...
