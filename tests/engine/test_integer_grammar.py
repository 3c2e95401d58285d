"""A grammar of bounded integers spells those within the bounds, each in one way, and nothing else."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labsupport.engine.grammars.integers import MOST_DIGITS, OPEN_DIGITS, bounds, integer_rule
from labsupport.engine.grammars.json_schema import to_grammar
from labsupport.engine.grammars.rules import Rules
from labsupport.engine.grammars.schema_limits import SchemaRefused

PIECE = re.compile(r'"(-?0?)"|(\[[0-9-]+\])(?:\{(\d+)(?:,(\d+))?\})?|(r\d+)')


def rules_between(low: int, high: int) -> tuple[str, dict[str, str]]:
    """The name of the first rule, and the bodies of all."""
    rules = Rules()
    grammar = rules.finished(integer_rule(low, high, rules))
    bodies = dict(line.split(" ::= ") for line in grammar.splitlines())
    return bodies.pop("root"), bodies


def texts(name: str, bodies: dict[str, str]) -> list[str]:
    """Everything that a rule spells, as often as it does."""
    found = []
    for way in bodies[name].split(" | "):
        parts = []
        for literal, characters, least, most, rule in PIECE.findall(way):
            if rule:
                parts.append(texts(rule, bodies))
            elif characters:
                digits = [digit for digit in "0123456789" if re.fullmatch(characters, digit)]
                counts = range(int(least or 1), int(most or least or 1) + 1)
                parts.append(["".join(each) for n in counts for each in itertools.product(digits, repeat=n)])
            else:
                parts.append([literal])
        found += ["".join(each) for each in itertools.product(*parts)]
    return found


def pattern(name: str, bodies: dict[str, str]) -> str:
    """A rule as a regular expression."""
    body = re.sub(r"r\d+", lambda found: pattern(found[0], bodies), bodies[name])
    return f"(?:{body.replace(' ', '').replace(chr(34), '')})"


def test_every_small_range_spells_each_of_its_integers_once_and_nothing_else():
    for low, high in itertools.combinations_with_replacement(range(-11, 102), 2):
        assert Counter(texts(*rules_between(low, high))) == Counter(map(str, range(low, high + 1))), (
            low,
            high,
        )


def test_every_range_around_a_change_of_length_does_too():
    places = [0, 1, 9, 10, 11, 98, 99, 100, 101, 109, 110, 199, 989, 990, 998, 999, 1000, 1001, 1099, 1100]
    for low, high in itertools.combinations_with_replacement([*(-n for n in reversed(places)), *places], 2):
        assert sorted(texts(*rules_between(low, high))) == sorted(map(str, range(low, high + 1))), (low, high)


LARGE = st.integers(-(10**MOST_DIGITS) + 1, 10**MOST_DIGITS - 1) | st.integers(-2000, 2000)


@settings(deadline=None)
@given(LARGE, LARGE, st.lists(LARGE, max_size=20), st.data())
@example(-(2**63), 2**63 - 1, [0], None)
@example(0, 2**64 - 1, [2**63], None)
def test_in_a_large_range_too(one, other, others, data):
    low, high = min(one, other), max(one, other)
    spelled = re.compile(pattern(*rules_between(low, high)))
    near = [low - 1, low, low + 1, high - 1, high, high + 1, 10 * low, 10 * high, high // 10, -high, -low, 0]
    inside = [data.draw(st.integers(low, high))] if data else []
    for number in (*near, *others, *inside):
        assert bool(spelled.fullmatch(str(number))) == (low <= number <= high), number
        # One spelling of each
        for other_text in (
            f"0{number}",
            f"+{number}",
            f"{number}.0",
            f"{number} ",
            f"--{number}",
            f"-0{number}",
        ):
            assert not spelled.fullmatch(other_text)
    assert not spelled.fullmatch("-0")
    assert not spelled.fullmatch("")


@settings(deadline=None)
@given(LARGE, LARGE)
def test_a_text_stands_in_one_place_only(one, other):
    # Of each rule, no two ways begin with the same character
    _, bodies = rules_between(min(one, other), max(one, other))
    for body in bodies.values():
        firsts = [way.split(" ")[0] for way in body.split(" | ")]
        taken = [c for c in "-0123456789" for first in firsts if re.match(first.replace('"', "") or "$", c)]
        assert len(taken) == len(set(taken)), body
    assert len(bodies) <= 4 * MOST_DIGITS


NUMBERS = st.none() | st.integers(-300, 300) | st.floats(-300, 300).map(lambda value: round(value, 1))


@settings(deadline=None)
@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_all_four_bounds_hold_together(minimum, maximum, above, below):
    names = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    given_bounds = {
        name: value
        for name, value in zip(names, (minimum, maximum, above, below), strict=True)
        if value is not None
    }
    fitting = [
        number
        for number in range(-302, 303)
        if (minimum is None or number >= minimum)
        and (maximum is None or number <= maximum)
        and (above is None or number > above)
        and (below is None or number < below)
    ]
    if given_bounds and not fitting:
        with pytest.raises(SchemaRefused, match="no integer is"):
            bounds(given_bounds, "")
    elif given_bounds:
        low, high = bounds(given_bounds, "")
        assert low == fitting[0] or (minimum is None and above is None and low == 1 - 10**OPEN_DIGITS)
        assert high == fitting[-1] or (maximum is None and below is None and high == 10**OPEN_DIGITS - 1)


def test_an_open_side_ends_with_the_digits_of_the_other_or_of_any_integer():
    assert bounds({"minimum": 5}, "") == (5, 10**OPEN_DIGITS - 1)
    assert bounds({"maximum": -(10**18)}, "") == (-(10**19) + 1, -(10**18))
    assert bounds({}, "") is None


def test_a_hundred_bounds_of_64_bits_are_within_the_size_of_a_grammar():
    schema = {
        "type": "object",
        "properties": {
            f"p{n}": {"type": "integer", "minimum": -(2**63) + 7**n, "maximum": 2**63 - 5**n}
            for n in range(20)
        }
        | {f"q{n}": {"type": "integer", "minimum": n, "maximum": 2**31 - n} for n in range(80)},
    }
    schema["required"] = list(schema["properties"])
    assert to_grammar(schema).startswith("root ::= ")
