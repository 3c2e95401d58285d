"""The four skills of the pocket model, each a source of questions with one right answer."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any

from labsupport.errors import LabsupportError
from labsupport.pocket import glossary, incident_reports, value_lists, weight_sizes
from labsupport.pocket.sample import Sample, Split

SKILLS: dict[str, Callable[..., Sample]] = {
    "summarize": incident_reports.sample,
    "recall": value_lists.sample,
    "glossary": glossary.sample,
    "size": weight_sizes.sample,
}


def samples(skill: str, *, split: Split = "heldout", seed: int, count: int, **options: Any) -> list[Sample]:
    """`count` samples of one skill, the same for the same seed on every machine.

    Options: `pairs` (recall: length of the list, 16), `phrasing` (glossary: "trained" or "unseen").
    Held-out samples use other names, values, size × bits pairs and sentence templates than training does.
    """
    if skill not in SKILLS:
        raise LabsupportError(f"There is no skill {skill!r}.", allowed=", ".join(SKILLS))
    if split not in ("train", "heldout"):
        raise LabsupportError(f"There is no split {split!r}.", allowed="train, heldout")
    rng = random.Random(zlib.crc32(f"{skill}/{split}/{seed}".encode()))
    return [SKILLS[skill](rng, split, **options) for _ in range(count)]
