"""The loads: chats of strangers, a shared system prompt, and long documents among chats."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.words import Words
from labsupport.loadtest import Prompt

LONG_EVERY = 8
MOST_PROMPTS = {"plain": 2000, "shared": 800, "mixed": 1000}
CLIENTS = (1, 4, 8, 16, 32)


@dataclass(frozen=True)
class Load:
    """A kind of load. `context_tokens`: the longest prompt and answer together."""

    name: str
    description: str
    context_tokens: int
    make: Callable[[Words, random.Random, int], list[Prompt]]

    def prompts(self, words: Words, seed: str, *, most: int | None = None) -> list[Prompt]:
        """Its prompts for one run: the same for the same seed, and like those of no other seed."""
        return self.make(words, random.Random(f"{self.name} {seed}"), most or MOST_PROMPTS[self.name])


def _plain(words: Words, chance: random.Random, count: int) -> list[Prompt]:
    return [Prompt(prompt=words.text(128, chance), max_tokens=64) for _ in range(count)]


def _shared(words: Words, chance: random.Random, count: int) -> list[Prompt]:
    system = words.text(900, chance)
    return [Prompt(prompt=system + words.text(32, chance), max_tokens=32) for _ in range(count)]


def _mixed(words: Words, chance: random.Random, count: int) -> list[Prompt]:
    """Lengths are drawn: where all answers are equally long, clients come in waves, and a server that stops
    everything for a wave of prompts has few gaps that show it."""
    return [
        Prompt(prompt=words.text(chance.randint(1000, 1500), chance), max_tokens=16)
        if number % LONG_EVERY == LONG_EVERY // 2
        else Prompt(prompt=words.text(chance.randint(32, 96), chance), max_tokens=chance.randint(48, 144))
        for number in range(count)
    ]


LOADS = {
    load.name: load
    for load in (
        Load("plain", "128 tokens in, 64 out", 192, _plain),
        Load("shared", "900 tokens that all share and 32 of their own in, 32 out", 964, _shared),
        Load(
            "mixed",
            f"32 to 96 in and 48 to 144 out, and every {LONG_EVERY}th 1,000 to 1,500 in and 16 out",
            1516,
            _mixed,
        ),
    )
}
