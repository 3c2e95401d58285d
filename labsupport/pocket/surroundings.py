"""Random words and signs around a fact, so that nothing but the fact itself can tell where it stands.

At the first token of a name, a causal model knows only what stands before it. As long as a corpus has a few
dozen ways to lead up to a name, that is what the model learns: a list of ways to lead up to names, of no use
with one that is not on the list. (With 60 of them, every service was found behind those of the training
split, and 49 in 100 behind the held-out ones.) Behind random words it has to look at what follows instead,
at `was down for`, and to come back from there.
"""

from __future__ import annotations

import random
import re

from labsupport.pocket.names import WORDS, made_up_word

_SIGNS = "=:-~><|/+*#@%&^!?;,._$"
_WORD = re.compile(r"(?<![\w{<.-])(?!min)[A-Za-z]+(?![\w}>-])")
_LEAD_ENDS = ("",) * 10 + (":", ":", ":", ",", ",", " that", " that", " -", " because", " when")


def words(rng: random.Random, at_least: int, at_most: int) -> str:
    """A few words that make no sense, some of which nobody has seen."""
    return " ".join(_word(rng) for _ in range(rng.randint(at_least, at_most)))


def _word(rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.6:
        return rng.choice(WORDS["everyday"])
    if chance < 0.85:
        return rng.choice(WORDS[rng.choice(("nouns", "adjectives", "broke", "things_lost", "suffering"))])
    return made_up_word(rng, "train")


def with_other_words(rng: random.Random, sentence: str) -> str:
    """The sentence with a tenth to two fifths of its words made random ones; marks and `minutes` stay."""
    share = rng.choice((0.1, 0.2, 0.4))

    def other(match: re.Match[str]) -> str:
        if rng.random() >= share:
            return match[0]
        word = _word(rng)
        return word.capitalize() if match[0][0].isupper() else word

    return _WORD.sub(other, sentence)


def lead(rng: random.Random) -> str:
    """How a sentence could begin: one to five words, perhaps `that` or a sign."""
    text = words(rng, 1, rng.choice((1, 2, 3, 5)))
    return text[0].upper() + text[1:] + rng.choice(_LEAD_ENDS)


def tail(rng: random.Random) -> str:
    """How it could end: mostly nothing more, else a few words behind a sign or `and`."""
    if rng.random() < 0.5:
        return ""
    return rng.choice((", ", ", ", " and ", "; ", ". ")) + words(rng, 1, 4)


def signs(rng: random.Random) -> str:
    """One to three signs, mostly of one kind, as they stand between a key and its value."""
    kinds = rng.sample(_SIGNS, 2)
    return "".join(rng.choice(kinds) for _ in range(rng.choice((1, 1, 2, 2, 3))))
