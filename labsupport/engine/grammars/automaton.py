"""Regular expressions as deterministic automata, written as rules of a grammar.

Right means: the rules match what the expression matches, and after any beginning of a text there is one place
where it can stand. llama.cpp follows every place at once, and for each token of the vocabulary all of their
continuations, so with several places its work grows with a power of their number: on `(.{0,30}){0,30}`,
written down as it is, it did not come back.

An expression becomes Thompson's automaton, and that a deterministic one by the subset construction (Aho,
Sethi, Ullman, "Compilers", section 3.7). The latter can be exponentially large, so both are bounded.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from labsupport.engine.grammars.gbnf import Ranges, union
from labsupport.engine.grammars.rules import GrammarTooLarge, Rules

MOST_STATES = 4_000


@dataclass(frozen=True, slots=True)
class Chars:
    """One of these characters."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Series:
    """These, one after the other; none is the empty text."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of these."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Repeated:
    """This, `least` to `most` times; None is without end."""

    part: Expression
    least: int
    most: int | None


Expression = Chars | Series | Either | Repeated


def text(characters: str) -> Series:
    """Exactly this text."""
    return Series(tuple(Chars(((ord(character),) * 2,)) for character in characters))


def to_rules(expression: Expression, rules: Rules, spelled: Callable[[Ranges], str]) -> str:
    """The rule that matches an expression, where `spelled` writes one of some characters.

    Raises GrammarTooLarge.
    """
    states = _deterministic(_Thompson(expression), rules)
    names = [rules.reserve() for _ in states]
    for name, (moves, is_end) in zip(names, states, strict=True):
        ways = [f"{spelled(union(ranges))} {names[target]}" for target, ranges in moves.items()]
        rules.define(name, " | ".join([*ways, '""'] if is_end else ways))
    return names[0]


class _Thompson:
    """Thompson's construction: states with moves by characters and silent moves, from state 0 to `end`."""

    def __init__(self, expression: Expression) -> None:
        self.moves: list[list[tuple[Ranges, int]]] = []
        self.silent: list[list[int]] = []
        self.end = self._built(expression, self._state())

    def _state(self) -> int:
        if len(self.moves) >= 5 * MOST_STATES:
            raise _too_large()
        self.moves.append([])
        self.silent.append([])
        return len(self.moves) - 1

    def _built(self, expression: Expression, begin: int) -> int:
        """The state in which the expression ends, if it begins in `begin`."""
        match expression:
            case Chars(ranges):
                end = self._state()
                self.moves[begin].append((ranges, end))
                return end
            case Series(parts):
                for part in parts:
                    begin = self._built(part, begin)
                return begin
            case Either(parts):
                end = self._state()
                for part in parts:
                    self.silent[begin].append(own := self._state())
                    self.silent[self._built(part, own)].append(end)
                return end
            case Repeated(part, least, most):
                for _ in range(least):
                    begin = self._built(part, begin)
                return self._more(part, begin, None if most is None else most - least)

    def _more(self, part: Expression, begin: int, most: int | None) -> int:
        end = self._state()
        self.silent[begin].append(end)
        if most is None:
            self.silent[self._built(part, end)].append(end)
            return end
        for _ in range(most):
            begin = self._built(part, begin)
            self.silent[begin].append(end)
        return end

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        """These and where silent moves lead from them."""
        seen, todo = set(states), list(states)
        while todo:
            for state in self.silent[todo.pop()]:
                if state not in seen:
                    seen.add(state)
                    todo.append(state)
        return frozenset(seen)


def _deterministic(automaton: _Thompson, rules: Rules) -> list[tuple[dict[int, list[tuple[int, int]]], bool]]:
    """Per state, the characters that lead to each next state, and whether the text may end there."""
    start = automaton.closure([0])
    numbers, todo = {start: 0}, [start]
    states: list[tuple[dict[int, list[tuple[int, int]]], bool]] = []
    for subset in todo:  # which grows meanwhile
        moves = [move for state in subset for move in automaton.moves[state]]
        rules.spend(len(subset) + sum(len(ranges) for ranges, _ in moves))
        found: dict[int, list[tuple[int, int]]] = {}
        for first, last, targets in _apart(moves):
            after = automaton.closure(targets)
            rules.spend(len(targets) + len(after))
            if after not in numbers:
                numbers[after] = len(numbers)
                todo.append(after)
            found.setdefault(numbers[after], []).append((first, last))
        if len(numbers) > MOST_STATES:
            raise _too_large()
        states.append((found, automaton.end in subset))
    return states


def _apart(moves: list[tuple[Ranges, int]]) -> Iterable[tuple[int, int, frozenset[int]]]:
    """Ranges of characters that do not overlap, each with all the states that it leads to."""
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for ranges, target in moves:
        for first, last in ranges:
            begins.setdefault(first, []).append(target)
            ends.setdefault(last + 1, []).append(target)
    active: Counter[int] = Counter()
    places = sorted(begins.keys() | ends.keys())
    for place, following in itertools.pairwise(places):
        active.update(begins.get(place, ()))
        active.subtract(ends.get(place, ()))
        active = +active
        if active:
            yield place, following - 1, frozenset(active)


def _too_large() -> GrammarTooLarge:
    return GrammarTooLarge(
        "a pattern or an enum has too many ways to be matched", allowed=f"about {MOST_STATES} places in it"
    )
