"""Skill `recall`: give back one value out of a list of N named values that stands in the prompt.

Right means the entry asked for, quoted as the list has it: key, value and what stands between them. A key
stands behind a space wherever it occurs, because a byte-level tokenizer cuts a word differently at the start
of a line.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from labsupport.pocket import names
from labsupport.pocket.sample import Sample, Split, Wordings, belongs
from labsupport.pocket.surroundings import lead, signs, tail, words

_ENTRIES: Wordings = {
    "train": (
        "{k}: {v}",
        "{k} = {v}",
        "{k} is {v}",
        "{k} -> {v}",
        "{k} | {v}",
        "{k} to {v}",
        "{k} has the value {v}",
        "{k}, {v}",
        "{k} => {v}",
        "{k} ({v})",
        "{k} was set to {v}",
        "{k}, value {v}",
        "{k} is now {v}",
        "{k} / {v}",
        "{k} got {v}",
        "{k} at {v}",
        "{k} has {v}",
        "{k} gets {v}",
        "{k} keeps {v}",
        "{k} uses {v}",
        "{k} takes {v}",
        "{k} shows {v}",
        "{k} <- {v}",
        "{k} -- {v}",
        "{k} >> {v}",
        "{k} @ {v}",
        "{k} % {v}",
        "{k} & {v}",
        "{k} + {v}",
        "{k} == {v}",
        "{k} :: {v}",
        "{k} ; {v}",
        "{k} must be {v}",
        "{k} should be {v}",
        "{k} counts {v}",
        "{k} stands at {v}",
        "{k} reads {v}",
        "{k} ... {v}",
        "{k} has been {v}",
        "{k} equals {v}",
        "{k} was {v}",
        "{k} means {v}",
        "{k} may be {v}",
        "{k} went to {v}",
    ),
    "heldout": ("{k} := {v}", "{k} is set to {v}", "{k} holds {v}", "{k} ~ {v}"),
}
_MARKS: Wordings = {
    "train": ("  ", "- ", "* ", "> ", "# ", "; ", "set ", "entry ", "value of ", "the value of "),
    "heldout": ("+ ", "item ", "    "),
}
_INTROS: Wordings = {
    "train": (
        "Here are our settings:",
        "These are the values.",
        "Current configuration:",
        "I pasted the list below.",
        "Settings of the cluster:",
        "Keep this list in mind:",
        "The table of values:",
        "From the config file:",
        "This is what we have:",
        "Look at this list.",
        "Values as of today:",
        "All settings, one a line:",
        "Please read this list:",
        "Below are some numbers.",
    ),
    "heldout": (
        "Below is the list of settings:",
        "Our current values:",
        "Have a look at this configuration.",
    ),
}
_QUESTIONS: Wordings = {
    "train": (
        "What is the value of key {k}?",
        "Which value does key {k} have?",
        "Tell me the value of key {k}.",
        "What does the list say for key {k}?",
        "Give me key {k}.",
        "How about key {k}?",
        "I need the value of key {k}, please.",
        "What is key {k} set to?",
        "Look up key {k}.",
        "So what is key {k}?",
        "Can you tell me what key {k} is?",
        "What number belongs to key {k}?",
        "Find key {k} in the list.",
        "Which number stands next to key {k}?",
        "Please look for key {k} and tell me its value.",
        "I forgot the value of key {k}. What is it?",
        "What was key {k} again?",
        "Read me the entry for key {k}.",
        "Value of key {k}?",
        "Check key {k} for me.",
        "For key {k}, which value do you see?",
        "And key {k}?",
        "How is key {k} set?",
        "Do you see key {k}? What is its value?",
        "Can you give me the value that belongs to key {k}?",
        "Which value is listed for key {k}?",
        "What do we have for key {k}?",
        "Somebody asked for key {k}. What is it?",
        "What is written for key {k}?",
        "Please give the value for key {k}.",
    ),
    "heldout": (
        "Please tell me what the value of key {k} is.",
        "Can you look up the value of key {k}?",
        "What value is given for key {k}?",
    ),
}


def sample(rng: random.Random, split: Split, *, pairs: int = 16) -> Sample:
    """A list of `pairs` keys with four-digit values and a question for one of them.

    A pair takes about 17 tokens, so that 64 pairs are longer than 1,000 tokens.
    """
    return conversation(rng, split, pairs=pairs, questions=1)[0]


def conversation(
    rng: random.Random,
    split: Split,
    *,
    pairs: int,
    questions: int,
    unseen: names.Unseen | None = None,
    variety: float = 0.0,
) -> list[Sample]:
    """One list, then several questions about it, turn after turn: more to learn from each long list.

    For training, `variety` is the share of separators and list marks that are random words or signs.
    """
    keys = names.keys(rng, split, pairs, unseen=unseen)
    values = [_value(rng, split) for _ in keys]
    entry, mark = rng.choice(_ENTRIES[split]), rng.choice(_MARKS[split])
    if variety and rng.random() < variety:
        entry = _made_up(rng, _entry, _ENTRIES)
    if variety and rng.random() < variety:
        mark = _made_up(rng, _mark, _MARKS)
    entries = [entry.format(k=key, v=value) for key, value in zip(keys, values, strict=True)]
    rows = [mark + entry for entry in entries]
    intro = rng.choice(_INTROS[split])
    turns = []
    for turn, asked in enumerate(rng.sample(range(pairs), questions)):
        question = rng.choice(_QUESTIONS[split]).format(k=keys[asked])
        if variety and rng.random() < variety / 2:
            question = f"{lead(rng)} key {keys[asked]}{tail(rng)}{rng.choice('.??')}"
        prompt = question if turn else "\n".join((intro, *rows, question))
        turns.append(Sample("recall", prompt, f"The key {entries[asked]}."))
    return turns


def _value(rng: random.Random, split: Split) -> str:
    while True:
        value = str(rng.randrange(1000, 10000))
        if belongs(value, split):
            return value


def _made_up(rng: random.Random, make: Callable[[random.Random], str], known: Wordings) -> str:
    while True:
        made = make(rng)
        if made not in known["heldout"]:
            return made


def _entry(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return f"{{k}}{rng.choice((' ', ' ', ''))}{signs(rng)}{rng.choice((' ', ' ', ''))}{{v}}"
    return (
        f"{{k}}{rng.choice((' ', ' ', ' ', ', '))}{words(rng, 1, 3)}{rng.choice((' ', ' ', ' ', ': '))}{{v}}"
    )


def _mark(rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.3:
        return " " * rng.randint(1, 8)
    return f"{signs(rng) if chance < 0.6 else words(rng, 1, 2)} "
