"""The wording of incident reports, for training and, in other words, held out: `incident_wordings.toml`.

Right means that a report in words that nobody has trained on is understood too, and that takes many: with 20
ways to say each thing, 0.94 of the reports in one set of other words were summarized right, which training
had been steered by, and 0.4 of those in another, which nobody had looked at. With 80 to 170 ways, and 0.97 of
the training reports right, it was 0.78; and 0.93 to 0.96 where only one of the sentences was in other words.
So there are 220 to 470 ways now. After 2,300 steps with them 0.86 of training's reports and 0.80 of the
held-out ones are right: the words are no longer what keeps the two apart, and it is steps that lack. (The
bundled weights are the mean of those before and after these steps, which is better than either.)
"""

from __future__ import annotations

import tomllib
from importlib.resources import files

from labsupport.pocket.sample import Wordings

_SPLITS: dict[str, dict[str, list[str]]] = tomllib.loads(
    files("labsupport.pocket").joinpath("incident_wordings.toml").read_text(encoding="utf-8")
)


def _wordings(kind: str) -> Wordings:
    return {"train": tuple(_SPLITS["train"][kind]), "heldout": tuple(_SPLITS["heldout"][kind])}


INSTRUCTIONS = _wordings("instructions")
IMPACTS = _wordings("impacts")
OPENINGS = _wordings("openings")
OPENINGS_WITH_LENGTH = _wordings("openings_with_length")
LENGTHS = _wordings("lengths")
CAUSES = _wordings("causes")
REMEDIES = _wordings("remedies")
ATTEMPTS = _wordings("attempts")
NOISE = _wordings("noise")
WHOLE_CAUSES = tuple(_SPLITS["train"]["whole_causes"])
WHOLE_FIXES = tuple(_SPLITS["train"]["whole_fixes"])
