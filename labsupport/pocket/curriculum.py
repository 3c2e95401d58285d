"""What the model sees at which step: copying first, then the four skills, with lists that grow.

A model this small learns the grammar of the corpus and no copying at all when it starts on the skills. So
it starts with *induction*: a random row of tokens, a separator, the same row again, with loss on the repeat
only. Where in a report a name stands is what it finds last, so many names are words that nobody has seen,
random words stand around them, many reports are notes of one or two sentences, and rows of random words
practise the look back from what stands behind a word to its beginning. In the end, when it can tell what is
what in any surroundings, it sees texts more as people write them. (260 steps of that took a third of the
errors in summaries away that 500 steps of the stage before had left as they were.) There, many reports have
cause and repair that speak of things of one kind, and services with one stem: only what stands around tells
them apart. (370 steps with such reports took half of the remaining errors away.) A batch depends on the
seed and the number of the step alone, so a resumed run sees what an unbroken one would.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from labsupport.pocket import glossary, incident_reports, value_lists, weight_sizes
from labsupport.pocket.names import Unseen
from labsupport.pocket.sample import Sample
from labsupport.pocket.schedule import CYCLES
from labsupport.pocket.tokenizer import TURN_END, user_turn, word_starts

PROMPT_WEIGHT = 0.02  # the whole of a prompt weighs this share of its answer; names in it are pure noise
_SYSTEM_SHARE = 0.1
_SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a concise assistant.",
    "Answer in one sentence.",
    "You help the people on call.",
    "Be brief and exact.",
)


@dataclass(frozen=True)
class Row:
    """Token ids, and for each of them how much its prediction counts in the loss."""

    tokens: list[int]
    weights: list[float]


@dataclass(frozen=True)
class Stage:
    """What holds from step `start` on: shares of the tokens, names, how many reports are short notes, the
    share of sentences, separators and questions with random words in them, and that of reports with things
    alike."""

    start: int
    shares: tuple[tuple[str, float], ...]
    unseen: Unseen
    short_notes: float
    variety: float = 0.65
    alike: float = 0.0


_START = (
    ("induction", 0.10),
    ("lookup", 0.30),
    ("recall", 0.15),
    ("summarize", 0.30),
    ("glossary", 0.08),
    ("size", 0.07),
)
_FIRST = (
    ("induction", 0.04),
    ("lookup", 0.06),
    ("recall", 0.28),
    ("summarize", 0.42),
    ("glossary", 0.10),
    ("size", 0.10),
)
_LAST = (
    ("induction", 0.02),
    ("lookup", 0.02),
    ("recall", 0.36),
    ("summarize", 0.40),
    ("glossary", 0.07),
    ("size", 0.13),
)
_REPORTS = (
    ("induction", 0.01),
    ("lookup", 0.01),
    ("recall", 0.25),
    ("summarize", 0.63),
    ("glossary", 0.04),
    ("size", 0.06),
)


@dataclass(frozen=True)
class Curriculum:
    """Stages, when lists are how long, and how many tokens one step holds."""

    stages: tuple[Stage, ...] = (
        Stage(0, _START, Unseen(0.7, ordinary=0.5, spliced=0.4, vowels=0.3), short_notes=0.9),
        Stage(200, _FIRST, Unseen(0.7, ordinary=0.5, spliced=0.4, vowels=0.3), short_notes=0.7),
        Stage(1500, _LAST, Unseen(0.7, ordinary=0.65, spliced=0.4, vowels=0.3), short_notes=0.5),
        Stage(3500, _LAST, Unseen(0.7, ordinary=0.65, spliced=0.4, vowels=0.3), short_notes=0.3),
        Stage(4500, _REPORTS, Unseen(0.7, ordinary=0.65, spliced=0.4, vowels=0.3), short_notes=0.1),
        Stage(
            CYCLES[0][0],
            _REPORTS,
            Unseen(0.4, ordinary=0.65, spliced=0.4, vowels=0.3),
            short_notes=0.0,
            variety=0.25,
            alike=0.3,
        ),
    )
    sixteen_pairs_at: int = 60
    sixty_four_pairs_at: int = 260
    tokens_per_step: int = 5120

    def longest_list(self, step: int) -> int:
        """How many pairs the longest list of this step has: 4 at first, 16, in the end 64."""
        if step < self.sixteen_pairs_at:
            return round(4 + 12 * step / self.sixteen_pairs_at)
        done = (step - self.sixteen_pairs_at) / (self.sixty_four_pairs_at - self.sixteen_pairs_at)
        return round(16 + 48 * min(1.0, done))

    def rows(self, step: int, *, seed: int, tokenizer: Any) -> list[Row]:
        """The rows of one step."""
        rng = random.Random(f"{seed}/{step}")
        stage = max((stage for stage in self.stages if stage.start <= step), key=lambda stage: stage.start)
        rows = []
        copied = rng.randint(12, 64)
        for kind, share in stage.shares:
            left = share * self.tokens_per_step
            while left > 0:
                row = self._row(kind, step, stage, rng, tokenizer, copied)
                left -= len(row.tokens)
                # The last row of a kind comes in only so often that shares hold on average.
                if left >= 0 or rng.random() < 1 + left / len(row.tokens):
                    rows.append(row)
        return rows

    def _row(
        self, kind: str, step: int, stage: Stage, rng: random.Random, tokenizer: Any, copied: int
    ) -> Row:
        if kind == "induction":
            return induction_row(rng, copied=copied, vocabulary_size=tokenizer.get_vocab_size())
        if kind == "lookup":
            return lookup_row(rng, tokenizer)
        varied: dict[str, Any] = {
            "unseen": replace(stage.unseen, beginnings=beginnings(tokenizer)),
            "variety": stage.variety,
        }
        if kind == "recall":
            longest = self.longest_list(step)
            pairs = (
                round(2 * (longest / 2) ** rng.random()) if rng.random() < 0.75 else rng.randint(2, longest)
            )
            questions = min(pairs, rng.choice((1, 2, 4, 8, 8)))
            turns = value_lists.conversation(rng, "train", pairs=pairs, questions=questions, **varied)
            return chat_row(turns, rng, tokenizer)
        if kind == "summarize":
            short = rng.random() < stage.short_notes
            turns = [
                incident_reports.short_note(rng, **varied)
                if short
                else incident_reports.sample(rng, "train", **varied, alike=stage.alike)
            ]
        else:
            turns = [self._short(kind, stage, rng)]
        while rng.random() < 0.12 and len(turns) < 4:
            turns.append(self._short(rng.choice(("glossary", "size")), stage, rng))
        return chat_row(turns, rng, tokenizer)

    def _short(self, kind: str, stage: Stage, rng: random.Random) -> Sample:
        if kind == "glossary":
            return glossary.sample(rng, "train")
        return weight_sizes.sample(rng, "train", variety=stage.variety)


def induction_row(rng: random.Random, *, copied: int, vocabulary_size: int) -> Row:
    """A random row of `copied` tokens, a separator, the row again.

    Where the row has few different tokens, one token back does not tell where one is: it takes more of them.
    """
    few = rng.randint(4, 2 * copied)
    alphabet = [rng.randrange(3, vocabulary_size) for _ in range(few)]
    row = [rng.choice(alphabet) for _ in range(copied)]
    separator = rng.randrange(3, vocabulary_size)
    return Row([*row, separator, *row], [0.0] * (copied + 2) + [1.0] * (copied - 1))


def lookup_row(rng: random.Random, tokenizer: Any) -> Row:
    """Random words of one to five tokens, each before a mark; then the marks again, each before its word.

    A name in a report is known by what stands behind it, and is written from its beginning. Here the same
    look back is asked for dozens of times in a row.
    """
    starts = starts_of_words(tokenizer)
    others = sorted(set(range(3, tokenizer.get_vocab_size())) - set(starts))
    count = rng.randint(4, 24)
    marks = rng.sample(starts, count)
    words = [[rng.choice(starts), *rng.choices(others, k=rng.choice((0, 1, 2, 3, 4)))] for _ in marks]
    tokens: list[int] = []
    for word, mark in zip(words, marks, strict=True):
        tokens += [*rng.choices(starts, k=rng.choice((0, 0, 1, 2))), *word, mark]
    weights = [0.0] * len(tokens)
    for asked in rng.sample(range(count), count):
        tokens += [marks[asked], *words[asked]]
        weights += [0.0] + [1.0] * len(words[asked])
    return Row(tokens, weights)


@lru_cache(maxsize=4)
def starts_of_words(tokenizer: Any) -> list[int]:
    """The tokens that words begin with."""
    return word_starts(tokenizer).nonzero().flatten().tolist()


@lru_cache(maxsize=4)
def beginnings(tokenizer: Any) -> tuple[str, ...]:
    """What words can begin with: every token of letters alone behind a space."""
    words = (tokenizer.id_to_token(i).removeprefix("Ġ") for i in starts_of_words(tokenizer))
    return tuple(word for word in words if word.isascii() and word.isalpha() and word.islower())


def chat_row(turns: list[Sample], rng: random.Random, tokenizer: Any) -> Row:
    """A chat; answers and the end of their turns count 1 a token, prompts little."""
    tokens: list[int] = []
    weights: list[float] = []
    for turn, sample in enumerate(turns):
        system = rng.choice(_SYSTEM_MESSAGES) if turn == 0 and rng.random() < _SYSTEM_SHARE else ""
        before = tokenizer.encode(("\n" if turn else "") + user_turn(sample.prompt, system=system)).ids
        after = tokenizer.encode(sample.answer + TURN_END).ids
        tokens += before + after
        weights += [PROMPT_WEIGHT * len(after) / len(before)] * len(before) + [1.0] * len(after)
    return Row(tokens, weights)
