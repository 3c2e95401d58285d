"""What somebody who watches the engine at work is sent: who runs, who waits, and whose the cells are.

Right means: a snapshot is true between two steps, all of it at one moment; and it holds lengths, counts and
times, never what a request says: no text, no token ids, no key, and of a request's id only a few characters.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Phase = Literal["prompt", "decode"]


class Watch(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Send snapshots for the next `seconds`, at most `per_second` of them each second; 0 seconds: no more.

    A lease, not a switch: a watcher that is gone and said nothing stops costing anything by itself, and one
    that renews it reaches an engine that was started again meanwhile.
    """

    seconds: float
    per_second: float = 10.0


class RunningView(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence of the batch.

    name: a few characters of its request's id. slot: its place in the batch, 0 up to the engine's `slots`,
    for as long as it runs (not the runner's slot, which kept prefixes have too).
    cached_tokens: of its prompt, taken from another sequence. computed_tokens: in the cache now.
    step_tokens: how many of its tokens the last step computed; 0 if the step had no room for it.
    """

    name: str
    slot: int
    phase: Phase
    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int
    generated_tokens: int
    max_tokens: int
    step_tokens: int


class WaitingView(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence of the queue; one with `generated_tokens` ran before, and lost its memory to an older."""

    name: str
    prompt_tokens: int
    generated_tokens: int
    waited_seconds: float


class SegmentView(msgspec.Struct, frozen=True, kw_only=True):
    """Cells that the same holders share: tokens `start` to `start` + `cells` of each of them.

    holders: names of running sequences, and `kept N` for finished ones whose prefix stays. is_kept: only such
    hold it, so the room can be had back.
    """

    start: int
    cells: int
    holders: tuple[str, ...]
    is_kept: bool


class StepView(msgspec.Struct, frozen=True, array_like=True):
    """What one step computed: one token for each of `decodes` sequences, `prompt_tokens` of prompts, and
    `recomputed_tokens` of either that had been lost with their sequence's memory."""

    decodes: int
    prompt_tokens: int
    recomputed_tokens: int = 0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The engine between two steps.

    slots: sequences that may run at once. step_tokens: the most tokens of one step.
    waiting: the head of the queue, of `num_waiting`.
    segments: every cell that is held, once, whoever shares it: those in use add up to `used_cells`, those
        only kept to `cached_cells`. Of `total_cells` the rest is free.
    steps: those since the snapshot before, oldest first; they computed `prompt_tokens` of prompts, drew
        `generated_tokens`, and computed `recomputed_tokens` once more.
    """

    slots: int
    step_tokens: int
    running: tuple[RunningView, ...]
    waiting: tuple[WaitingView, ...]
    num_waiting: int
    segments: tuple[SegmentView, ...]
    used_cells: int
    cached_cells: int
    total_cells: int
    steps: tuple[StepView, ...]
    prompt_tokens: int
    generated_tokens: int
    recomputed_tokens: int = 0


def short_name(request_id: str) -> str:
    """`chatcmpl-1f2e3d4c…-0` as `1f2e3d`; a further choice of the same request has its number, `1f2e3d-2`."""
    stem, _, index = request_id.rpartition("-")
    if not stem or not index.isdigit():
        return request_id[-8:]
    body = stem.rpartition("-")[2][:6]
    return body if index == "0" else f"{body}-{index}"
