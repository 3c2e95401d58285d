"""Skill `summarize`: one sentence out of a report that somebody on call has written.

Right means the canonical sentence: which service, what was wrong, for how long, why, and who did what that
helped. Every word of it stands in the report, behind a space, because a byte-level tokenizer cuts a word
differently at the start of a line. Around it stand things that do not belong in: other services, other
people, other numbers, and things that were tried in vain.
"""

from __future__ import annotations

import random

from labsupport.pocket import incident_variety, names
from labsupport.pocket.incident_causes import FAMILIES
from labsupport.pocket.incident_phrases import (
    ATTEMPTS,
    CAUSES,
    IMPACTS,
    INSTRUCTIONS,
    LENGTHS,
    NOISE,
    OPENINGS,
    OPENINGS_WITH_LENGTH,
    REMEDIES,
    Wordings,
)
from labsupport.pocket.sample import Sample, Split, belongs


def sample(rng: random.Random, split: Split, *, made_up: float | None = None, variety: float = 0.0) -> Sample:
    """A report of three to seven sentences and its summary.

    For training, `made_up` is the share of names nobody has seen, `variety` that of sentences put together.
    """
    facts = _facts(rng, split, made_up)
    outline = _outline(rng, split, variety)
    report = [_filled(rng, split, sentence.format(**facts)) for sentence in outline]
    for extra in (ATTEMPTS, NOISE):
        for sentence in rng.sample(extra[split], rng.choice((0, 0, 1) if extra is ATTEMPTS else (0, 1, 2))):
            place = rng.randrange(0 if extra is NOISE else 1, len(report) + 1)
            report.insert(
                place, _filled(rng, split, sentence, taken=(facts["s"], facts["p"]), made_up=made_up)
            )
    return _sample(
        rng, split, report, "Service {s} was {i} for {m} minutes because {c}; {p} {f}.".format(**facts)
    )


def short_note(rng: random.Random, *, made_up: float | None, variety: float = 0.0) -> Sample:
    """A note with one or two of the facts, for training: in a short text, names are found sooner."""
    facts = _facts(rng, "train", made_up)
    parts = rng.choice(
        ("opening remedy", "opening remedy", "cause remedy", "cause remedy", "opening cause", "opening")
    )
    wordings = {"opening": OPENINGS_WITH_LENGTH, "cause": CAUSES, "remedy": REMEDIES}
    note = [_sentence(rng, "train", wordings[part], variety).format(**facts) for part in parts.split()]
    if rng.random() < 0.3:
        note.insert(rng.randrange(len(note) + 1), rng.choice(NOISE["train"]))
    taken = (facts["s"], facts["p"])
    note = [_filled(rng, "train", sentence, taken=taken, made_up=made_up) for sentence in note]
    summary = {
        "opening remedy": "Service {s} was {i} for {m} minutes; {p} {f}.",
        "cause remedy": "Because {c}; {p} {f}.",
        "opening cause": "Service {s} was {i} for {m} minutes because {c}.",
        "opening": "Service {s} was {i} for {m} minutes.",
    }[parts]
    return _sample(rng, "train", note, summary.format(**facts))


def _facts(rng: random.Random, split: Split, made_up: float | None) -> dict[str, str]:
    cause, fix, impact = _what_happened(rng, split)
    cause, fix = _filled(rng, split, cause, made_up=made_up), _filled(rng, split, fix, made_up=made_up)
    service, solver = names.service(rng, split, made_up=made_up), names.person(rng, split, made_up=made_up)
    minutes = str(_minutes(rng, split))
    return {"s": service, "i": impact, "m": minutes, "c": cause, "f": fix, "p": solver}


def _sample(rng: random.Random, split: Split, report: list[str], summary: str) -> Sample:
    prompt = rng.choice(INSTRUCTIONS[split]).format(report=_written(rng, split, report))
    return Sample("summarize", prompt, summary)


def _what_happened(rng: random.Random, split: Split) -> tuple[str, str, str]:
    """Cause, fix and impact: from one family; in training mostly free combinations of words."""
    family = rng.choice(FAMILIES[split])
    cause = f"{rng.choice(family.things)} {rng.choice(family.faults)}"
    fix, impact = rng.choice(family.fixes), rng.choice(IMPACTS[split])
    if split == "train" and rng.random() < 0.7:
        cause = f"{_some_thing(rng)} {_word(rng, 'broke')} {_some_thing(rng)}"
        if rng.random() < 0.3:
            cause += (
                f" {rng.choice(('overnight', 'at night', 'twice', 'too late', 'by mistake', 'for hours'))}"
            )
    if split == "train" and rng.random() < 0.7:
        fix = f"{_word(rng, 'mended')} {_some_thing(rng)}"
        if rng.random() < 0.3:
            fix += f" {rng.choice(('to', 'by', 'at'))} <number>"
    if split == "train" and rng.random() < 0.7:
        impact = f"{_word(rng, 'suffering')} {_word(rng, 'things_lost')}"
    held_out = FAMILIES["heldout"]
    taken = {fault for each in held_out for fault in each.faults} | {
        f for each in held_out for f in each.fixes
    }
    if split == "train" and (impact in IMPACTS["heldout"] or fix in taken or any(f in cause for f in taken)):
        return _what_happened(rng, split)
    return cause, fix, impact


def _some_thing(rng: random.Random) -> str:
    adjective = f"{_word(rng, 'adjectives')} " if rng.random() < 0.4 else ""
    thing = f"the {adjective}{_word(rng, 'nouns')}"
    chance = rng.random()
    if chance < 0.15:
        return f"{thing} of <service>"
    if chance < 0.3:
        return f"{thing} on <host>"
    return thing


def _word(rng: random.Random, kind: str) -> str:
    return rng.choice(names.WORDS[kind])


def _outline(rng: random.Random, split: Split, variety: float) -> list[str]:
    """The sentences that carry the facts, in an order that somebody might tell them in."""
    body = [_sentence(rng, split, CAUSES, variety), _sentence(rng, split, REMEDIES, variety)]
    if rng.random() < 0.5:
        opening = _sentence(rng, split, OPENINGS_WITH_LENGTH, variety)
    else:
        opening = _sentence(rng, split, OPENINGS, variety)
        body.insert(rng.randrange(3), rng.choice(LENGTHS[split]))
    if rng.random() < 0.2:
        rng.shuffle(body)
    return [opening, *body]


def _sentence(rng: random.Random, split: Split, wordings: Wordings, variety: float) -> str:
    """One of the wordings or, in a share of `variety`, one of the same kind put together from parts."""
    if not variety or rng.random() >= variety:
        return rng.choice(wordings[split])
    if wordings is CAUSES:
        return incident_variety.cause(rng)
    if wordings is REMEDIES:
        return incident_variety.remedy(rng)
    return incident_variety.opening(rng, with_length=wordings is OPENINGS_WITH_LENGTH)


def _minutes(rng: random.Random, split: Split) -> int:
    while True:
        minutes = rng.randrange(3, 180)
        if belongs(f"{minutes} minutes", split):
            return minutes


def _filled(
    rng: random.Random, split: Split, text: str, *, taken: tuple[str, ...] = (), made_up: float | None = None
) -> str:
    """Replace the marks of incidental content, each with something new and none with a name of `taken`."""
    makers = {
        "<service>": lambda: names.service(rng, split, made_up=made_up),
        "<person>": lambda: names.person(rng, split, made_up=made_up),
        "<host>": lambda: f"{names.made_up_word(rng, split)}{rng.randrange(1, 30)}",
        "<version>": lambda: f"{rng.randrange(1, 9)}.{rng.randrange(0, 40)}.{rng.randrange(0, 10)}",
        "<number>": lambda: str(rng.randrange(2, 100) * rng.choice((1, 10, 100))),
        "<clock>": lambda: f"{rng.randrange(24):02}:{rng.randrange(60):02}",
    }
    for mark, make in makers.items():
        while mark in text:
            name = make()
            if name not in taken:
                text = text.replace(mark, name, 1)
    return text


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
