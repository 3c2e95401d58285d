"""Skill `glossary`: what is a KV cache? The answer is held in the weights; nothing in the prompt helps.

Right means the definition of `terms.TERMS`, word for word. A question is an opening, a core and a closing.
"Trained" phrasing joins known parts in combinations that training never saw for that term; "unseen" phrasing
uses parts that are in no training text.
"""

from __future__ import annotations

import random
from typing import Literal

from labsupport.errors import LabsupportError
from labsupport.pocket.sample import Sample, Split, belongs
from labsupport.pocket.terms import TERMS

Phrasing = Literal["trained", "unseen"]

_OPENINGS: dict[Phrasing, tuple[str, ...]] = {
    "trained": (
        "",
        "",
        "",
        "Quick question: ",
        "Hi! ",
        "Hello, ",
        "Sorry to ask, but ",
        "For my notes: ",
        "I keep forgetting: ",
        "A colleague asked me: ",
        "Just to be sure, ",
        "Before the meeting: ",
        "I am new to this. ",
        "Help me out: ",
        "Good evening! ",
        "One question: ",
        "I am studying. ",
        "Tell me, ",
        "Next one: ",
    ),
    "unseen": ("", "", "One more thing: ", "Good morning! ", "I am reading about this. ", "Remind me, "),
}
_CORES: dict[Phrasing, tuple[str, ...]] = {
    "trained": (
        "what is {t}?",
        "what's {t}?",
        "what does {b} mean?",
        "define {b}.",
        "explain {t}.",
        "explain {b} in one sentence.",
        "what do people mean by {b}?",
        "give me a definition of {b}.",
        "can you explain {t}?",
        "tell me what {t} is.",
        "what do you call {t}, and what is it?",
        "how would you describe {t}?",
        "please define the term {b}.",
        "{b}?",
        "what exactly is {t}?",
        "in the docs I read about {t}. What is that?",
        "do you know what {t} is?",
        "what is meant by {b}?",
        "I do not understand {t}. Can you explain it?",
        "meaning of {b}?",
        "someone mentioned {t} today; what is it?",
        "what is the idea of {t}?",
        "how does one define {b}?",
        "I stumbled over {t}. What is it?",
        "describe {t}.",
        "what is the meaning of {b}?",
        "a definition of {b}, please.",
        "tell me about {t}.",
        "explain to me what {t} is.",
        "what does the word {b} mean?",
        "what am I to think of when I hear {b}?",
        "could you explain {t}?",
        "what does {b} refer to?",
        "I have to explain {t} to my team. What is it?",
        "in a few words, what is {t}?",
        "what do you understand by {t}?",
        "I saw {b} in a log. What does it mean?",
    ),
    "unseen": (
        "could you tell me what {b} stands for?",
        "what should I understand by {t}?",
        "how do you define {b}?",
        "I came across {t}. What might that be?",
        "what is {b} all about?",
        "describe {t} for me.",
        "explain what {t} is, in a few words.",
        "a short definition of {b}, please?",
    ),
}
_CLOSINGS: dict[Phrasing, tuple[str, ...]] = {
    "trained": (
        "",
        "",
        "",
        " Thanks.",
        " One sentence, please.",
        " Keep it short.",
        " Thank you!",
        " In short.",
        " Be brief, please.",
        " A sentence is enough.",
        " Thanks a lot.",
    ),
    "unseen": ("", "", " A short answer will do.", " Many thanks!"),
}


def sample(rng: random.Random, split: Split, *, phrasing: Phrasing = "trained") -> Sample:
    """A question about one term. Training has the trained phrasing only."""
    if phrasing not in _CORES or (split == "train" and phrasing == "unseen"):
        raise LabsupportError(
            f"No {phrasing!r} phrasing in the {split} split.", allowed="trained, heldout unseen"
        )
    while True:
        term = rng.choice(TERMS)
        opening, core, closing = (rng.choice(part[phrasing]) for part in (_OPENINGS, _CORES, _CLOSINGS))
        if phrasing == "unseen" or belongs(f"{term.phrase}|{opening}|{core}|{closing}", split):
            break
    shown = term.phrase if rng.random() < 0.85 else term.phrase.lower()
    bare = shown.removeprefix("an ").removeprefix("a ")
    question = core.format(t=shown, b=bare)
    if not opening or opening.rstrip().endswith((".", "!")):
        question = question[0].upper() + question[1:]
    return Sample("glossary", f"{opening}{question}{closing}", term.definition)
