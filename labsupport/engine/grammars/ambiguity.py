"""In how many places of a grammar one beginning of a text can stand.

Right means: a grammar that passes keeps llama.cpp's work per token within a fixed factor of what a plain one
costs. It follows every alternative that fits the text so far. Two objects in an `anyOf` both fit until a key
or a value tells them apart; where such a pair contains another, there are four ways, then eight; and where
it contains itself, as many as the text has brackets, doubled each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from labsupport.errors import LabsupportError

MOST_WAYS = 32
MOST_PLACES = 128
"""Properties that may come next, in all ways together. llama.cpp's work for a token grows with their number
(measured, 2,048 tokens: 1.7 ms with 50 optional properties, 56 ms with 30 alternatives alike of 50 each)."""

_TEXT = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]')
_NAME = re.compile(r"[a-z]+\d*")
_NUMBER = re.compile(r'["\[](?:\d|-|\\x2D)|integer ')


class TooAmbiguous(LabsupportError):
    """A text could be read in so many ways that each token would take long."""


def parts_of(body: str) -> list[str]:
    """The rules that a rule's body names."""
    return _NAME.findall(_TEXT.sub(" ", body))


def refuse_ambiguous(
    bodies: Mapping[str, str],
    choices: Iterable[str],
    expanded: Callable[[str], list[str]],
    optional: Mapping[str, int],
) -> None:
    """Raise TooAmbiguous if a text could be read in more than MOST_WAYS ways, or go on in too many places.

    choices: the rules that stand for one of others, which `expanded` tells.
    optional: of objects' rules, how many of their properties may be left out.
    """
    alike = {name: _groups(bodies, expanded(name)) for name in choices}
    parts = {name: parts_of(body) for name, body in bodies.items()} | {
        name: [rule for group in groups for rule in group] for name, groups in alike.items()
    }
    torn = [name for name, groups in alike.items() if any(len(group) > 1 for group in groups)]
    if len(torn) > 200 or any(_contains_itself(name, parts) for name in torn):
        raise _refused()
    order = _from_the_leaves(parts)
    none: Mapping[str, int] = {}
    for most_allowed, beside in ((MOST_WAYS, none), (MOST_PLACES, optional)):
        ways: dict[str, int] = {}
        for name in order:
            most = max((ways.get(part, 1) for part in parts[name]), default=1)
            for group in alike.get(name, ()):
                most = max(most, sum(ways.get(rule, 1) for rule in group))
            ways[name] = max(most, 1 + beside.get(name, 0))
            if ways[name] > most_allowed:
                raise _refused()


def _groups(bodies: Mapping[str, str], rules: list[str]) -> list[list[str]]:
    """Of some alternatives, those that begin with the same character."""
    groups: dict[str, list[str]] = {}
    for rule in rules:
        body = bodies.get(rule, "")
        kind = body[:2] if body.startswith(('"{', '"[')) else "number" if _NUMBER.match(body) else "text"
        groups.setdefault(rule if rule in ("number", "boolean", "null") else kind, []).append(rule)
    return list(groups.values())


def _contains_itself(name: str, parts: Mapping[str, list[str]]) -> bool:
    seen, todo = set(), list(parts[name])
    while todo:
        each = todo.pop()
        if each == name:
            return True
        if each not in seen:
            seen.add(each)
            todo.extend(parts.get(each, ()))
    return False


def _from_the_leaves(parts: Mapping[str, list[str]]) -> list[str]:
    """Every rule after the rules in it, as far as there is such an order."""
    order: list[str] = []
    seen: set[str] = set()
    for root in parts:
        todo = [(root, False)]
        while todo:
            name, is_done = todo.pop()
            if is_done:
                order.append(name)
            elif name not in seen and name in parts:
                seen.add(name)
                todo.append((name, True))
                todo.extend((part, False) for part in parts[name])
    return order


def _refused() -> TooAmbiguous:
    return TooAmbiguous(
        "the schema's alternatives begin alike so often that a text could be read in too many ways",
        allowed=f"at most {MOST_WAYS} ways at once, and no anyOf of alternatives alike that contains itself",
        remedy="Let the alternatives of anyOf be of different types.",
    )
