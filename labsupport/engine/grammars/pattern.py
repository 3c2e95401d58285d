"""Reading a regular expression of a JSON schema.

Right means: every string that the expression made from it matches is one that the pattern matches, for JSON
Schema (which searches, in ECMA-262's dialect) and for Python's `re`. The converse is not promised: the whole
string is made from the pattern, as if it stood between ^ and $.

Nothing is matched here, so no pattern can take long: it is read once, from left to right. What is not regular
(look-around, back-references) or differs between dialects is refused by name.
"""

from __future__ import annotations

import re

from labsupport.engine.grammars.automaton import Chars, Either, Expression, Repeated, Series
from labsupport.engine.grammars.gbnf import LARGEST_REPETITION, Ranges, all_but, intersected, union
from labsupport.errors import LabsupportError

LONGEST_PATTERN = 500
DEEPEST_GROUP = 10

_ASCII: Ranges = ((0, 0x7F),)
_DIGIT: Ranges = ((0x30, 0x39),)
_WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Ranges = ((9, 13), (32, 32))
_PERHAPS_SPACE: Ranges = (
    (0x1C, 0x1F), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
    (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)  # fmt: skip
_Set = tuple[Ranges, Ranges]
"""Characters that are in a set, and characters that are not, to both dialects: of some they say different."""
_IN: dict[str, _Set] = {
    "d": (_DIGIT, intersected(all_but(_DIGIT), _ASCII)),
    "w": (_WORD, intersected(all_but(_WORD), _ASCII)),
    "s": (_SPACE, all_but(union((*_SPACE, *_PERHAPS_SPACE)))),
}
_CLASSES: dict[str, _Set] = _IN | {name.upper(): (outside, inside) for name, (inside, outside) in _IN.items()}
_ANY = all_but(((10, 10), (13, 13), (0x2028, 0x2029)))
_CONTROL = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_QUANTIFIER = re.compile(r"(?:[*+?]|\{(\d{1,6})(?:(,)(\d{1,6})?)?\})")


class PatternRefused(LabsupportError):
    """A regular expression that is not read here, and why."""


def read(pattern: str) -> Expression:
    """The strings that match a pattern. Raises PatternRefused."""
    if len(pattern) > LONGEST_PATTERN:
        raise PatternRefused(
            f"the pattern has {len(pattern)} characters", allowed=f"at most {LONGEST_PATTERN}"
        )
    return _Reader(pattern).read()


class _Reader:
    """One pattern, and the place in it up to which it has been read."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._place = 0

    def read(self) -> Expression:
        piece = self._choices(depth=0)
        if self._place < len(self._pattern):
            raise self._refused("a ) that closes nothing")
        return piece

    def _choices(self, *, depth: int) -> Expression:
        choices = [self._sequence(depth)]
        while self._take("|"):
            choices.append(self._sequence(depth))
        return Either(tuple(choices))

    def _sequence(self, depth: int) -> Expression:
        if depth == 0:
            self._take("^")
        pieces = []
        while self._next() not in ("", "|", ")"):
            if depth == 0 and self._next() == "$" and self._ends_branch():
                self._place += 1
                break
            pieces.append(self._quantified(depth))
        return Series(tuple(pieces))

    def _ends_branch(self) -> bool:
        return self._pattern[self._place + 1 : self._place + 2] in ("", "|")

    def _quantified(self, depth: int) -> Expression:
        piece = self._atom(depth)
        found = _QUANTIFIER.match(self._pattern, self._place)
        if not found:
            return piece
        begin, self._place = self._place, found.end()
        least, most = self._bounds(found)
        if max(least, most or 0) > LARGEST_REPETITION or (most is not None and most < least):
            raise self._refused(f"the repetition {found.group()}", begin)
        self._take("?")  # a lazy quantifier matches the same strings
        if self._next() in ("*", "+", "?") or _QUANTIFIER.match(self._pattern, self._place):
            raise self._refused("two quantifiers in a row")
        return Repeated(piece, least, most)

    @staticmethod
    def _bounds(found: re.Match[str]) -> tuple[int, int | None]:
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if found.group() in simple:
            return simple[found.group()]
        least, comma, most = found.groups()
        return int(least), int(most) if most else None if comma else int(least)

    def _atom(self, depth: int) -> Expression:
        begin, character = self._place, self._advance()
        if character == "(":
            return self._group(depth + 1, begin)
        if character == "[":
            return self._chars(self._set(begin)[0], begin)
        if character == ".":
            return self._chars(_ANY, begin)
        if character == "\\":
            return self._chars(self._escape(begin)[0], begin)
        if character in "^$*+?{}])":
            raise self._refused(f"{character} there", begin)
        return self._chars(((ord(character), ord(character)),), begin)

    def _group(self, depth: int, begin: int) -> Expression:
        if depth > DEEPEST_GROUP:
            raise self._refused(f"more than {DEEPEST_GROUP} groups inside each other", begin)
        if self._take("?") and not self._take(":"):
            raise self._refused("a group that begins with (?, except (?:", begin)
        piece = self._choices(depth=depth)
        if not self._take(")"):
            raise self._refused("a ( without its )", begin)
        return piece

    def _set(self, begin: int) -> _Set:
        is_negated = self._take("^")
        inside: Ranges = ()
        outside = all_but(())
        while not self._take("]"):
            member = self._member(begin)
            if self._next() == "-" and self._pattern[self._place + 1 : self._place + 2] not in ("]", ""):
                self._place += 1
                member = self._range(member, self._member(begin), begin)
            inside, outside = union((*inside, *member[0])), intersected(outside, member[1])
        return (outside, inside) if is_negated else (inside, outside)

    def _range(self, first: _Set, last: _Set, begin: int) -> _Set:
        low, high = first[0], last[0]
        if not (len(low) == len(high) == 1 and low[0][0] == low[0][1] <= high[0][0] == high[0][1]):
            raise self._refused("a range like that", begin)
        return _exactly((low[0][0], high[0][0]))

    def _member(self, begin: int) -> _Set:
        if not self._next():
            raise self._refused("a [ without its ]", begin)
        character = self._advance()
        if character == "[":
            raise self._refused("a [ inside [ ]; write \\[", begin)  # sets of sets to some dialects
        return self._escape(begin) if character == "\\" else _exactly((ord(character),) * 2)

    def _escape(self, begin: int) -> _Set:
        character = self._advance()
        if character in _CLASSES:
            return _CLASSES[character]
        if character in _CONTROL:
            return _exactly((_CONTROL[character],) * 2)
        if character and character in "xu":
            length = 2 if character == "x" else 4
            digits = self._pattern[self._place : self._place + length]
            if re.fullmatch(rf"[0-9a-fA-F]{{{length}}}", digits):
                self._place += length
                return _exactly((int(digits, 16),) * 2)
        if character.isascii() and character and not character.isalnum():
            return _exactly((ord(character),) * 2)
        raise self._refused(f"\\{character}", begin)

    def _chars(self, ranges: Ranges, begin: int) -> Chars:
        spellable = intersected(ranges, all_but(()))
        if not spellable:
            raise self._refused("a set without characters", begin)
        return Chars(spellable)

    # Reading

    def _next(self) -> str:
        return self._pattern[self._place : self._place + 1]

    def _advance(self) -> str:
        character = self._next()
        self._place += 1
        return character

    def _take(self, character: str) -> bool:
        is_there = self._next() == character
        self._place += is_there
        return is_there

    def _refused(self, what: str, place: int | None = None) -> PatternRefused:
        place = self._place if place is None else place
        return PatternRefused(
            f"the pattern has {what} (at character {place})",
            allowed=f"characters, sets, groups, |, and repetitions up to {LARGEST_REPETITION} times",
        )


def _exactly(ends: tuple[int, int]) -> _Set:
    return (ends,), all_but((ends,))
