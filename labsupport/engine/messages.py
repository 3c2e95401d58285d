"""What crosses the socket between a front end and the engine process, as typed msgspec structures.

Text goes in as token ids and comes back as text and token ids: the front end owns the chat template and the
tokenizer's encoder, the engine owns sampling and the detokenizer. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from labsupport.engine.snapshot import Snapshot, Watch

FinishReason = Literal["stop", "length", "abort", "error"]
Fault = Literal["request", "room", "engine"]


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one sequence chooses its next token, and when it ends.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 are off. `seed` None asks for an arbitrary
    one; 0 is a seed like any other. `logprobs` None is off, N asks for the N most likely alternatives of
    every token (0: only the chosen token's own).

    `logit_bias` holds pairs of a token and what is added to its logit, no token twice. It and the penalties,
    which are off at 0, 0 and 1, are defined in `penalties`.

    `grammar`, in GBNF, is what the whole text has to be, from its symbol `root`; "" is off. Make it with
    `grammars.json_schema.to_grammar`, and let `grammars.trial` try any other before an engine gets it.
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: str = ""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Run a prompt: ids of the model's vocabulary, at least one. A lower `priority` runs first."""

    request_id: str
    tokens: tuple[int, ...]
    params: SamplingParams
    priority: int = 0
    key: str = ""


class Abort(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Stop a request wherever it is (waiting, in prefill, decoding) and free what it holds."""

    request_id: str


class Inspect(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A debug question: report the pool's invariants and the queue's lengths."""

    question_id: str


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Finish nothing more; leave."""


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """One token's log probability (natural); `top` holds (token id, its bytes, log probability)."""

    token: int
    text: bytes
    logprob: float
    top: tuple[tuple[int, bytes, float], ...] = ()


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """What one step added to one request; several steps, for a reader who fell behind (`inbox`).

    `text` is what may be shown now (partial UTF-8 and possible beginnings of stop strings are held back), so
    it may be empty while `tokens` is not. The last delta has `finish_reason`. `cached_tokens` counts the
    prompt tokens that were not computed because a prefix was shared, and `queue_seconds` is the time from
    arrival to the first step; both are final from the first delta on. With the `finish_reason` `error` come
    its words and whose `fault` it is: see `faults`.
    """

    request_id: str
    tokens: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    error: str = ""
    fault: Fault = "engine"
    cached_tokens: int = 0
    queue_seconds: float = 0.0

    @staticmethod
    def joined(deltas: Sequence[Delta]) -> Delta:
        """What several deltas of one request say, in their order; at least one, and only the last an end."""
        if len(deltas) == 1:
            return deltas[0]
        return msgspec.structs.replace(
            deltas[-1],
            tokens=tuple(token for delta in deltas for token in delta.tokens),
            text="".join(delta.text for delta in deltas),
            logprobs=tuple(entry for delta in deltas for entry in delta.logprobs),
        )


class StepReport(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """All that one step of the engine has to say, in one message; also the engine's heartbeat when idle.

    The token counts are this step's own, so that adding them up gives totals across restarts:
    `prompt_tokens` were computed, `generated_tokens` drawn, and `recomputed_tokens` of both computed once
    more because their sequence had lost its memory; of `prefix_query_tokens` looked up on admission,
    `prefix_hit_tokens` were shared. `kv_used_cells` are held by running sequences; `kv_cached_cells` are kept
    for their prefix alone and given up when room is needed.
    """

    time: float
    deltas: tuple[Delta, ...] = ()
    running: int = 0
    waiting: int = 0
    kv_used_cells: int = 0
    kv_cached_cells: int = 0
    kv_total_cells: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    recomputed_tokens: int = 0
    prefix_query_tokens: int = 0
    prefix_hit_tokens: int = 0


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The engine has loaded and warmed up its model; what it can do and what it runs on.

    `warm_up_seconds` is what the first step took, of one token: the slowest that a token can be.
    """

    pid: int
    engine: str
    device: str
    reason: str
    context_tokens: int
    max_sequences: int
    step_tokens: int
    grammars: bool
    vocabulary_size: int
    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    load_seconds: float
    warm_up_seconds: float


class Integrity(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `Inspect`: `violations` is empty while every invariant of pool and scheduler holds.

    `used_cells` are held by running sequences, so 0 when idle; `cached_cells` are kept for their prefix.
    `sequences` names the requests, running ones first.
    """

    question_id: str
    violations: tuple[str, ...]
    running: int
    waiting: int
    used_cells: int
    cached_cells: int
    total_cells: int
    sequences: tuple[str, ...]


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The engine cannot go on (a model that does not load, say): the three parts of a LabsupportError."""

    problem: str
    remedy: str
    allowed: str = ""


ToEngine = Submit | Abort | Inspect | Watch | Shutdown
FromEngine = Ready | StepReport | Snapshot | Integrity | Failed
