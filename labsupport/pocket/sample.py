"""One question with its one right answer, and the rule that keeps training and held-out content apart."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "heldout"]
Wordings = dict[Split, tuple[str, ...]]


@dataclass(frozen=True)
class Sample:
    """A chat of one turn: `prompt` is the user's message, `answer` the assistant's, to be met exactly."""

    skill: str
    prompt: str
    answer: str


def belongs(content: str, split: Split) -> bool:
    """Whether a name, a value or a size × bits pair is of this split: one in eight is held out, for ever.

    The rule hangs on the text alone (CRC-32), not on a seed, so no training seed can meet held-out content.
    """
    held_out = zlib.crc32(content.encode()) % 8 == 0
    return held_out == (split == "heldout")
