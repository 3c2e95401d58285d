"""Integers between two bounds, digit by digit.

Right means: the rule matches the decimal spelling of exactly the integers within the bounds, without leading
zeros and without -0; and after any beginning of it there is one place where a text can stand (see
`automaton`), so a grammar of many bounds costs no more per token than a plain one.

After some digits, the number that they begin either is within the bounds whatever follows, so long as that is
so many digits; or it depends on the next digit. The latter is so only after a beginning of one of the bounds,
of which there are as many as they have digits: a rule for each is all it takes.

llama.cpp's own converter (`build_min_max_int` in `common/json-schema-to-grammar.cpp`) writes a range for each
length instead. A text then stands in as many places as there are lengths, and -0 is let through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from labsupport.engine.grammars import gbnf
from labsupport.engine.grammars.rules import Rules
from labsupport.engine.grammars.schema_limits import SchemaRefused, at

MOST_DIGITS = 20
"""Of a bound: those of the largest unsigned integer of 64 bits."""
OPEN_DIGITS = 16
"""Where there is no bound, or only one with fewer digits: as many as the built-in rule `integer` takes."""
_NEAREST: dict[str, Callable[[int | float], int]] = {
    "minimum": math.ceil,
    "exclusiveMinimum": lambda value: math.floor(value) + 1,
    "maximum": math.floor,
    "exclusiveMaximum": lambda value: math.ceil(value) - 1,
}
"""The nearest integer that each bound lets through."""


def bounds(schema: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    """The least and the largest integer that `minimum`, `maximum` and the exclusive ones leave; None without.

    A side without a bound ends where the digits do: at OPEN_DIGITS, or as many as the other side's bound has.
    Raises SchemaRefused for what is no bound, for one of too many digits, and where no integer is left.
    """
    given = {name: _number(schema[name], name, where) for name in _NEAREST if name in schema}
    if not given:
        return None
    lows = [_NEAREST[name](value) for name, value in given.items() if name.lower().endswith("minimum")]
    highs = [_NEAREST[name](value) for name, value in given.items() if name.lower().endswith("maximum")]
    digits = max(len(str(abs(bound))) for bound in (*lows, *highs))
    furthest = 10 ** max(digits, OPEN_DIGITS) - 1
    low, high = max(lows, default=-furthest), min(highs, default=furthest)
    if low > high:
        raise SchemaRefused(
            f"no integer is at least {low} and at most {high}{at(where)}", allowed="bounds with one between"
        )
    return low, high


def integer_rule(low: int, high: int, rules: Rules) -> str:
    """The rule of the integers from `low` to `high`, both included; `low` is not above `high`."""
    ways = []
    if low < 0:
        ways.append(f'"-" {_natural(max(1, -high), -low, rules)}')
    if high >= 0:
        ways.append(_natural(max(0, low), high, rules))
    return rules.add(" | ".join(ways))


def _number(value: Any, name: str, where: str) -> int | float:
    if type(value) not in (int, float) or abs(value) >= 10**MOST_DIGITS:
        raise SchemaRefused(
            f"{name} is {str(value)[:80]}{at(where)}", allowed=f"a number of at most {MOST_DIGITS} digits"
        )
    number: int | float = value
    return number


def _natural(low: int, high: int, rules: Rules) -> str:
    """The name of the rule for integers from `low`, which is not negative, to `high`."""
    ways = _by_digit(0, range(1, 10), low, high, rules)
    return rules.add(" | ".join(['"0"', *ways] if low == 0 else ways))


def _by_digit(begin: int, digits: range, low: int, high: int, rules: Rules) -> list[str]:
    """The ways on after the digits of `begin`, by the next one; digits with the same way on share it."""
    ways: dict[str, list[int]] = {}
    for digit in digits:
        rest = _rest(10 * begin + digit, low, high, rules)
        if rest is not None:
            ways.setdefault(rest, []).append(ord("0") + digit)
    return [
        f"{gbnf.characters(gbnf.union((code, code) for code in codes))} {rest}".rstrip()
        for rest, codes in ways.items()
    ]


def _rest(begin: int, low: int, high: int, rules: Rules) -> str | None:
    """What may follow the digits of `begin`, which is not 0: "" for nothing more, None if no number does."""
    whole, is_cut = [], False
    for more in range(len(str(high)) - len(str(begin)) + 1):
        first, last = begin * 10**more, (begin + 1) * 10**more - 1
        if low <= first and last <= high:
            whole.append(more)
        elif first <= high and low <= last:
            is_cut = True
    if is_cut:
        ways = _by_digit(begin, range(10), low, high, rules)
        return rules.add(" | ".join([*ways, '""'] if 0 in whole else ways))
    if not whole:
        return None
    return gbnf.repeated("[0-9]", whole[0], whole[-1]) if whole[-1] else ""
