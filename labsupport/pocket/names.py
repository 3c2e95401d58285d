"""Names that a report or a list can hold: services, people, keys. Held-out ones never stand in training text.

Some are made of syllables, so that the model learns to copy any word, not to know a few by heart.
"""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from importlib.resources import files

from labsupport.pocket.sample import Split, belongs

WORDS: dict[str, list[str]] = {
    part: words.split()
    for part, words in tomllib.loads(
        files("labsupport.pocket").joinpath("words.toml").read_text(encoding="utf-8")
    ).items()
}

_ORDINARY = ("nouns", "adjectives", "qualities", "things", "things_lost", "everyday")


@dataclass(frozen=True)
class Unseen:
    """Which share of names stands in no list of names; of these, which share are ordinary words.

    Without the latter, `order-api` is no name to a model that has only met such words elsewhere. A share of
    `spliced` begins with one of the `beginnings`, such as `ordergru`, so that a name can start with anything.
    And people in a share of `vowels` have no consonant before their first vowel: `I`, the token, begins few
    other words, and is no name in the rest of a text.
    """

    share: float
    ordinary: float = 0.0
    spliced: float = 0.0
    beginnings: tuple[str, ...] = ()
    vowels: float = 0.0

    def word(self, rng: random.Random, split: Split) -> str:
        """One of them."""
        if self.beginnings and rng.random() < self.spliced:
            return spliced(rng, split, self.beginnings)
        if self.ordinary and rng.random() < self.ordinary:
            return _word(rng, split, WORDS[rng.choice(_ORDINARY)])
        return made_up_word(rng, split)


def made_up_word(rng: random.Random, split: Split) -> str:
    """A pronounceable word, mostly of two syllables."""
    while True:
        syllables = (
            rng.choice(WORDS["onsets"]) + rng.choice(WORDS["vowels"]) for _ in range(rng.choice((1, 1, 1, 2)))
        )
        word = (
            "".join(syllables)
            + rng.choice(WORDS["onsets"])
            + rng.choice(WORDS["vowels"])
            + rng.choice(WORDS["codas"])
        )
        if belongs(word, split):
            return word


def spliced(rng: random.Random, split: Split, beginnings: tuple[str, ...]) -> str:
    """A word that begins with one of the `beginnings`."""
    while True:
        syllables = (
            rng.choice(WORDS["onsets"]) + rng.choice(WORDS["vowels"]) for _ in range(rng.choice((0, 1, 1, 2)))
        )
        word = rng.choice(beginnings) + "".join(syllables)
        if belongs(word, split):
            return word


def _word(rng: random.Random, split: Split, words: list[str]) -> str:
    while True:
        word = rng.choice(words)
        if belongs(word, split):
            return word


def service(rng: random.Random, split: Split, *, unseen: Unseen | None = None) -> str:
    """Such as `checkout-api`; in a share of `unseen` (15 %), such as `plindor-api`."""
    unseen = unseen or Unseen(0.15)
    stem = unseen.word(rng, split) if rng.random() < unseen.share else _word(rng, split, WORDS["stems"])
    return f"{stem}-{rng.choice(WORDS['kinds'])}"


def person(rng: random.Random, split: Split, *, unseen: Unseen | None = None) -> str:
    """A first name; in a share of `unseen` (10 %), such as `Plindor`: people are not called after things."""
    unseen = unseen or Unseen(0.1)
    if rng.random() >= unseen.share:
        return _word(rng, split, WORDS["people"])
    word = made_up_word(rng, split)
    if unseen.vowels and rng.random() < unseen.vowels:
        word = word.lstrip("bcdfghjklmnpqrstvwxyz")
    name = word.capitalize()
    is_listed = name in WORDS["people"]  # and may be the other split's
    return person(rng, split, unseen=unseen) if is_listed or not belongs(word, split) else name


def keys(rng: random.Random, split: Split, count: int, *, unseen: Unseen | None = None) -> list[str]:
    """`count` keys such as `amber-otter`; no word stands in two of them."""
    used: set[str] = set()
    unseen = unseen or Unseen(0.15)

    def fresh(words: list[str]) -> str:
        for _ in range(20):
            word = unseen.word(rng, split) if rng.random() < unseen.share else _word(rng, split, words)
            if word not in used:
                break
        while word in used:
            word = made_up_word(rng, split)
        used.add(word)
        return word

    return [f"{fresh(WORDS['qualities'])}-{fresh(WORDS['things'])}" for _ in range(count)]
