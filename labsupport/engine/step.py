"""What one step is made of: who gets how many of its tokens, as which rows, and for how long that stays so.

Right means: every sequence that decodes gets its token in every step, so no prompt, however long, makes
anybody wait for more than one step's budget.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items

from labsupport.engine.admission import Offer
from labsupport.engine.fairness import split_budget
from labsupport.engine.plan import Draw, Row
from labsupport.engine.sequence import Sequence
from labsupport.engine.slot_memory import slot_of


def share_step(
    step_tokens: int,
    running: Items[Sequence],
    offer: Offer | None,
    *,
    mixed_step_tokens: int,
    tenant: Callable[[Sequence], str],
) -> tuple[dict[str, int], int]:
    """How many tokens each running sequence computes in a step, by name, and how many are left for newcomers.

    Decodes come first: each gets its token. Prompts share what is left of the budget, and so does the one
    that is about to be let in: others' long prompts must not keep it out. `mixed_step_tokens` is the budget
    where any sequence decodes.
    """
    prompts = [sequence for sequence in running if not sequence.is_decoding]
    num_decoding = len(running) - len(prompts)
    room = (mixed_step_tokens if num_decoding else step_tokens) - num_decoding
    wants = [(tenant(sequence), sequence.num_uncomputed) for sequence in prompts]
    if offer:
        wants.append((tenant(offer.sequence), offer.num_uncomputed))
    shares = split_budget(room, wants)[: len(prompts)]
    counts = {sequence.request_id: 1 for sequence in running}
    counts |= {sequence.request_id: share for sequence, share in zip(prompts, shares, strict=True)}
    return counts, room - sum(shares)


def next_row(sequence: Sequence, count: int) -> Row:
    """The next `count` tokens of a sequence, with a draw if they are its last."""
    start = sequence.num_computed
    is_last = start + count == len(sequence.tokens)
    draw = Draw(sequence.params, sequence.seed, sequence.num_generated, sequence.tokens) if is_last else None
    again = min(max(sequence.num_ever_computed - start, 0), count)
    return Row(slot_of(sequence), start, sequence.tokens[start : start + count], draw, again)


def unchanged_for(rows: Items[Row], sequences: Items[Sequence], *, num_running: int, num_free: int) -> int:
    """`Plan.unchanged_for`, for a step that gives and takes no memory: more than 1 where all only decode.

    num_free: cells that are free without dropping a kept prefix. Who waits cannot be let in meanwhile,
    because the turn stays (`waiting`) and its claim fits no better until one ends (`admission`).
    """
    is_steady = all(len(each.tokens) == 1 and each.draw and each.draw.index for each in rows)
    if not rows or not is_steady or len(rows) < num_running:
        return 1
    return min(min(sequence.num_remaining for sequence in sequences), 1 + num_free // len(rows))
