"""Pieces of GBNF, llama.cpp's notation of a grammar, and sets of characters in it.

Right means: whatever text or character is given, the piece matches that and nothing else, and no text can end
its literal early and become a rule. Notation: llama.cpp, `grammars/README.md` and `src/llama-grammar.cpp`.
"""

from __future__ import annotations

from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]
"""Code points as (first, last) pairs, in order, apart from each other."""

LAST = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)
"""Code points that are no characters: UTF-8 cannot spell them."""
LARGEST_REPETITION = 1000
"""llama.cpp writes a repetition out as rules, refuses some above 2,000 and leaves the bound off others."""

PLAIN: Ranges = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE000, LAST))
"""What stands for itself in a JSON string (RFC 8259, section 7)."""
_ESCAPED = {0x22: '\\"', 0x5C: "\\\\", 8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}


def literal(text: str) -> str:
    """Exactly this text."""
    return '"' + "".join(_spelled(ord(character)) for character in text) + '"'


def characters(ranges: Ranges) -> str:
    """One of these characters."""
    parts = (
        _spelled(first) if first == last else f"{_spelled(first)}-{_spelled(last)}" for first, last in ranges
    )
    return f"[{''.join(parts)}]"


def in_json(ranges: Ranges) -> str:
    """One of these characters inside a JSON string, escaped where JSON wants it; "" if there is none.

    Control characters without a short escape are left out beside any others.
    """
    plain = intersected(ranges, PLAIN)
    choices = [characters(plain)] if plain else []
    choices += [literal(escape) for code, escape in _ESCAPED.items() if holds(ranges, code)]
    if not choices:
        choices = [literal(f"\\u{code:04x}") for code in range(0x20) if holds(ranges, code)]
    return choices[0] if len(choices) < 2 else f"({' | '.join(choices)})"


def repeated(piece: str, least: int, most: int | None) -> str:
    """A piece `least` to `most` times; None is without end. The piece is one unit: `[…]`, `(…)` or a name."""
    if (least, most) == (1, 1):
        return piece
    if most is None:
        return piece + {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    if most == 0:
        return '""'
    return f"{piece}{{{least}}}" if least == most else f"{piece}{{{least},{most}}}"


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """All of these together."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def all_but(ranges: Ranges) -> Ranges:
    """Every character that is not one of these."""
    rest, begin = [], 0
    for first, last in union((*ranges, SURROGATES)):
        if begin < first:
            rest.append((begin, first - 1))
        begin = last + 1
    if begin <= LAST:
        rest.append((begin, LAST))
    return tuple(rest)


def intersected(some: Ranges, others: Ranges) -> Ranges:
    """What is in both."""
    both = ((max(a, c), min(b, d)) for a, b in some for c, d in others)
    return union((first, last) for first, last in both if first <= last)


def holds(ranges: Ranges, code: int) -> bool:
    return any(first <= code <= last for first, last in ranges)


def _spelled(code: int) -> str:
    """One character, inside quotation marks or square brackets."""
    if chr(code).isascii() and (chr(code).isalnum() or chr(code) in " ,:_"):
        return chr(code)
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
