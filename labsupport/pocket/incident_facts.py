"""What a report is about: cause, repair and impact, and what can be mistaken for them.

Right means: none of the held-out ones, nor a part of one, is in training; and enough of training's make no
sense, so that where one begins and ends has to be read off what stands around it.
"""

from __future__ import annotations

import random
import re

from labsupport.pocket import names
from labsupport.pocket.incident_causes import FAMILIES
from labsupport.pocket.incident_phrases import IMPACTS, WHOLE_CAUSES, WHOLE_FIXES
from labsupport.pocket.sample import Split
from labsupport.pocket.surroundings import with_other_words, words

SERVICE = re.compile(r"[a-z]+-(?:" + "|".join(names.WORDS["kinds"]) + r")\b")
_THINGS_WITH_NAMES = ("<service>", "<service>", "<host>", "<host>", "<version>", "<number>")


def what_happened(rng: random.Random, split: Split) -> tuple[str, str, str]:
    """Cause, fix and impact: from one family; in training many others, and free combinations of words."""
    family = rng.choice(FAMILIES[split])
    cause = f"{rng.choice(family.things)} {rng.choice(family.faults)}"
    fix, impact = rng.choice(family.fixes), rng.choice(IMPACTS[split])
    if split == "heldout":
        return cause, fix, impact
    cause = rng.choice(
        (cause, rng.choice(WHOLE_CAUSES), rng.choice(WHOLE_CAUSES), _some_cause(rng), _some_cause(rng))
    )
    fix = rng.choice((fix, rng.choice(WHOLE_FIXES), rng.choice(WHOLE_FIXES), _some_fix(rng), _some_fix(rng)))
    if rng.random() < 0.4:
        impact = f"{_one_of(rng, 'suffering')} {_one_of(rng, 'things_lost')}"
        if rng.random() < 0.25:
            impact = words(rng, 1, 3)
        if rng.random() < 0.15:
            impact = f"not {impact}"
    held_out = FAMILIES["heldout"]
    taken = [fault for each in held_out for fault in each.faults] + [
        f for each in held_out for f in each.fixes
    ]
    if impact in IMPACTS["heldout"] or fix in taken or any(f in cause for f in taken):
        return what_happened(rng, split)
    return cause, fix, impact


def _some_cause(rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.2:
        return f"{_some_thing(rng)} {words(rng, 1, 4)}"
    if chance < 0.35:
        return with_other_words(rng, rng.choice(WHOLE_CAUSES))
    plain = f"{rng.choice(('the', 'a', 'our', 'one'))} {_one_of(rng, 'nouns')}"
    thing = _some_thing(rng) if rng.random() < 0.8 else plain
    cause = f"{thing} {_one_of(rng, 'broke')} {_some_thing(rng)}"
    return f"{cause} {words(rng, 1, 2)}" if rng.random() < 0.1 else cause


def _some_fix(rng: random.Random) -> str:
    chance, verb = rng.random(), _one_of(rng, "mended")
    if chance < 0.15:
        fix = f"{verb} {words(rng, 1, 3)}"
    elif chance < 0.4:
        which = rng.choice(("the", "a new", "another", "the old", "one more"))
        fix = f"{verb} {which} {_one_of(rng, 'nouns')}"
    elif chance < 0.55:
        return with_other_words(rng, rng.choice(WHOLE_FIXES))
    else:
        fix = f"{verb} {_some_thing(rng)}"
    if rng.random() < 0.3:
        fix += f" {rng.choice(('to', 'by', 'at', 'over to', 'in'))} {rng.choice(_THINGS_WITH_NAMES)}"
    return fix


def of_one_kind(rng: random.Random, cause: str) -> tuple[str, str]:
    """A cause and a repair that begin with things of one kind: only what stands around tells them apart."""
    noun = _one_of(rng, "nouns")
    mark = rng.choice(("<service>", "<host>", "<host>", "<version>", "<version>"))
    if mark == "<service>" and rng.random() < 0.5:
        mark = f"{names.spliced(rng, 'train', (noun[: rng.randint(1, 4)],))}-{_one_of(rng, 'kinds')}"
    other = noun if rng.random() < 0.6 else _one_of(rng, "nouns")
    link = rng.choice(("", "", "of ", "on ", "to ", "for ", "against "))
    article = rng.choice(("the ", "a ", "our ")) if link or rng.random() < 0.2 else ""
    thing, verbs = f"{article}{noun} {link}{mark}", " ".join(cause.split()[-rng.randint(2, 4) :])
    mended = _one_of(rng, "mended") + rng.choice(("", "", "", " back", " down"))
    again = rng.choice((f"{other} {mark}", f"{other} {mark}", f"the {noun}", f"the {other} of {mark}"))
    return f"{thing} {verbs}", f"{mended} {again}"


def like(rng: random.Random, service: str) -> str:
    """Another service with the same stem."""
    while True:
        kind = rng.choice(names.WORDS["kinds"])
        if not service.endswith(f"-{kind}"):
            return f"{service.rpartition('-')[0]}-{kind}"


def _some_thing(rng: random.Random) -> str:
    adjective = f"{_one_of(rng, 'adjectives')} " if rng.random() < 0.4 else ""
    thing = f"{rng.choice(('the', 'the', 'the', 'a', 'our', 'one'))} {adjective}{_one_of(rng, 'nouns')}"
    chance = rng.random()
    if chance < 0.25:
        return f"{thing} {rng.choice(('of', 'of', 'on', 'for', 'to', 'in'))} {rng.choice(_THINGS_WITH_NAMES)}"
    if chance < 0.5:
        return f"{_one_of(rng, 'nouns')} {rng.choice(_THINGS_WITH_NAMES)}"
    return thing


def _one_of(rng: random.Random, kind: str) -> str:
    return rng.choice(names.WORDS[kind])
