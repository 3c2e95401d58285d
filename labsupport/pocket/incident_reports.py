"""Skill `summarize`: one sentence out of a report that somebody on call has written.

Right means the canonical sentence: which service, what was wrong, for how long, why, and what helped, done
by whom. The repair comes before the person, though reports tell it the other way round: whether a name is
that of who mended it is only to be read behind the name, and a causal model that starts with the name has
to guess; behind the repair it can look back to who did it. Every word of the report stands behind a space,
because a byte-level tokenizer cuts a word differently at the start of a line. Around it stand things that
do not belong in: other services, other people, other numbers, and things that were tried in vain.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from labsupport.pocket import incident_variety, names
from labsupport.pocket.incident_facts import SERVICE, like, of_one_kind, what_happened
from labsupport.pocket.incident_phrases import (
    ATTEMPTS,
    CAUSES,
    INSTRUCTIONS,
    LENGTHS,
    NOISE,
    OPENINGS,
    OPENINGS_WITH_LENGTH,
    REMEDIES,
    Wordings,
)
from labsupport.pocket.names import Unseen
from labsupport.pocket.sample import Sample, Split, belongs

_KINDS: dict[str, tuple[Wordings, Callable[[random.Random], str]]] = {
    "opening": (OPENINGS, incident_variety.opening),
    "opening with length": (OPENINGS_WITH_LENGTH, incident_variety.opening_with_length),
    "length": (LENGTHS, incident_variety.length),
    "cause": (CAUSES, incident_variety.cause),
    "remedy": (REMEDIES, incident_variety.remedy),
    "attempt": (ATTEMPTS, incident_variety.attempt),
    "noise": (NOISE, incident_variety.noise),
}
_ESTRANGED = frozenset(_KINDS) - {"attempt", "noise"}  # a word more or less, and these could state a fact


def sample(
    rng: random.Random,
    split: Split,
    *,
    unseen: Unseen | None = None,
    variety: float = 0.0,
    alike: float = 0.0,
) -> Sample:
    """A report of three to seven sentences and its summary.

    For training: `unseen` says how many names nobody has seen, `variety` how many sentences are put together,
    `alike` in how many reports cause and repair are about things of one kind, and services have like names.
    """
    is_alike = bool(alike) and rng.random() < alike
    facts = _facts(rng, split, unseen, is_alike=is_alike)

    def other_service(sentence: str) -> str:
        return sentence.replace("<service>", like(rng, facts["s"])) if is_alike else sentence

    outline = [other_service(sentence) for sentence in _outline(rng, split, variety)]
    report = [_filled(rng, split, sentence.format(**facts)) for sentence in outline]
    of_noise = (0, 1, 2) if split == "heldout" else (0, 1, 2, 2)
    for extra, wordings, counts in (("attempt", ATTEMPTS, (0, 0, 1)), ("noise", NOISE, of_noise)):
        for sentence in rng.sample(wordings[split], rng.choice(counts)):
            if variety:
                sentence = _sentence(rng, split, extra, variety)
            place = rng.randrange(0 if extra == "noise" else 1, len(report) + 1)
            sentence = other_service(sentence)
            report.insert(place, _filled(rng, split, sentence, taken=(facts["s"], facts["p"]), unseen=unseen))
    return _sample(
        rng,
        split,
        report,
        "Service {s} was {i} for {m} minutes because {c}; fix: {f}, by {p}.".format(**facts),
    )


def short_note(rng: random.Random, *, unseen: Unseen | None, variety: float = 0.0) -> Sample:
    """A note with one or two of the facts, for training: in a short text, names are found sooner."""
    facts = _facts(rng, "train", unseen)
    parts = rng.choice(
        ("opening remedy", "opening remedy", "cause remedy", "cause remedy", "opening cause", "opening")
    )
    kinds = ["opening with length" if part == "opening" else part for part in parts.split()]
    note = [_sentence(rng, "train", kind, variety).format(**facts) for kind in kinds]
    if rng.random() < 0.4:
        extra = rng.choice(("attempt", "noise", "noise"))
        note.insert(rng.randrange(len(note) + 1), _sentence(rng, "train", extra, variety))
    taken = (facts["s"], facts["p"])
    note = [_filled(rng, "train", sentence, taken=taken, unseen=unseen) for sentence in note]
    summary = {
        "opening remedy": "Service {s} was {i} for {m} minutes; fix: {f}, by {p}.",
        "cause remedy": "Because {c}; fix: {f}, by {p}.",
        "opening cause": "Service {s} was {i} for {m} minutes because {c}.",
        "opening": "Service {s} was {i} for {m} minutes.",
    }[parts]
    return _sample(rng, "train", note, summary.format(**facts))


def _facts(
    rng: random.Random, split: Split, unseen: Unseen | None, *, is_alike: bool = False
) -> dict[str, str]:
    cause, fix, impact = what_happened(rng, split)
    if is_alike:
        cause, fix = of_one_kind(rng, cause)
    cause, fix = _filled(rng, split, cause, unseen=unseen), _filled(rng, split, fix, unseen=unseen)
    service, solver = names.service(rng, split, unseen=unseen), names.person(rng, split, unseen=unseen)
    if is_alike and (other := SERVICE.search(cause)):
        service = like(rng, other[0])
    if is_alike:
        impact = impact.replace("<service>", like(rng, service))
    impact = _filled(rng, split, impact, unseen=unseen)
    minutes = str(_minutes(rng, split))
    return {"s": service, "i": impact, "m": minutes, "c": cause, "f": fix, "p": solver}


def _sample(rng: random.Random, split: Split, report: list[str], summary: str) -> Sample:
    prompt = rng.choice(INSTRUCTIONS[split]).format(report=_written(rng, split, report))
    return Sample("summarize", prompt, summary)


def _outline(rng: random.Random, split: Split, variety: float) -> list[str]:
    """The sentences that carry the facts, in an order that somebody might tell them in."""
    body = [_sentence(rng, split, "cause", variety), _sentence(rng, split, "remedy", variety)]
    if rng.random() < 0.5:
        opening = _sentence(rng, split, "opening with length", variety)
    else:
        opening = _sentence(rng, split, "opening", variety)
        body.insert(rng.randrange(3), _sentence(rng, split, "length", variety))
    if rng.random() < 0.2:
        rng.shuffle(body)
    return [opening, *body]


def _sentence(rng: random.Random, split: Split, kind: str, variety: float) -> str:
    """One of the wordings; or, for training, one that may be strange and, in a share of `variety`, one of the
    same kind put together from parts."""
    wordings, put_together = _KINDS[kind]
    if not variety:
        return rng.choice(wordings[split])
    while True:
        if rng.random() < variety:
            sentence = put_together(rng).replace("{other_fix}", what_happened(rng, split)[1])
        else:
            sentence = rng.choice(wordings[split])
            if kind in _ESTRANGED:
                sentence = incident_variety.estranged(rng, sentence)
        if not any(held.lower().rstrip(".") in sentence.lower() for held in wordings["heldout"]):
            return sentence


def _minutes(rng: random.Random, split: Split) -> int:
    while True:
        minutes = rng.randrange(3, 180)
        if belongs(f"{minutes} minutes", split):
            return minutes


def _filled(
    rng: random.Random,
    split: Split,
    text: str,
    *,
    taken: tuple[str, ...] = (),
    unseen: Unseen | None = None,
) -> str:
    """Replace the marks of incidental content, each with something new and none with a name of `taken`."""
    alike = split == "train" and rng.random() < 0.5
    makers = {
        "<service>": lambda: names.service(rng, split, unseen=unseen),
        "<person>": lambda: names.person(rng, split, unseen=unseen),
        "<host>": lambda: f"{names.made_up_word(rng, split)}{_number(rng, 1, 30, alike)}",
        "<version>": lambda: (
            f"{_number(rng, 1, 9, alike)}.{_number(rng, 0, 40, alike)}.{_number(rng, 0, 10, alike)}"
        ),
        "<number>": lambda: str(rng.randrange(2, 100) * rng.choice((1, 10, 100))),
        "<clock>": lambda: f"{rng.randrange(24):02}:{rng.randrange(60):02}",
    }
    for mark, make in makers.items():
        while mark in text:
            name = make()
            if name not in taken:
                text = text.replace(mark, name, 1)
    return text


def _number(rng: random.Random, low: int, high: int, alike: bool) -> int:
    """A number below `high`; one of few if they are to be alike, so that it takes more to tell two apart."""
    return (
        rng.choice([few for few in (1, 2, 11, 12, 21, 22) if few < high])
        if alike
        else rng.randrange(low, high)
    )


def _written(rng: random.Random, split: Split, sentences: list[str]) -> str:
    """The sentences as prose, as a list, or as a log with times."""
    style = rng.random()
    if style < 0.6:
        return " ".join(sentences)
    if style < 0.85:
        bullet = rng.choice(("- ", "> ", "  ")) if split == "train" else "* "
        return "\n".join(f"{bullet}{sentence}" for sentence in sentences)
    minute = rng.randrange(1200)
    lines = []
    for sentence in sentences:
        minute += rng.randrange(1, 20)
        lines.append(f"{minute // 60:02}:{minute % 60:02} {sentence}")
    return "\n".join(lines)
