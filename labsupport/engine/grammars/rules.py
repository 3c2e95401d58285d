"""The rules of one grammar: named, shared, counted, and written out once they are all there.

Right means: no rule begins with itself (llama.cpp cannot read such a grammar, and looks for it in time that
grows exponentially with the depth of alternatives), the grammar is within its budget, and from its root a
text can come to an end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from labsupport.engine.grammars import gbnf
from labsupport.engine.grammars.ambiguity import refuse_ambiguous
from labsupport.errors import LabsupportError

MOST_REPETITIONS = 20_000
"""llama.cpp makes a rule of every repetition that can be."""
MOST_CHARACTERS = 200_000
MOST_RULES = 20_000
MOST_STEPS = 300_000
"""Steps in making automata deterministic, for all patterns of a schema together: about a second's work."""

_REPETITION = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_PRIMITIVES = {
    "comma": '"," " "?',
    "colon": '":" " "?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": 'integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
    "string": '"\\"" char* "\\""',
    "char": f'{gbnf.characters(gbnf.PLAIN)} | "\\\\" (["\\\\/bfnrt] | "u" unit)',
    # half a surrogate pair is no character
    "unit": "[0-9a-cefA-CEF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2}",
}
_PARTS = {"number": ["integer"], "string": ["char"], "char": ["unit"]}


class GrammarTooLarge(LabsupportError):
    """More than llama.cpp could take in without holding up everybody else."""


class NoEnd(LabsupportError):
    """No finite text satisfies the grammar, or to say which do would take for ever."""


class Rules:
    """A grammar in the making. A rule's name is short, and nobody's input is part of it."""

    def __init__(self) -> None:
        self._bodies: dict[str, str] = {}
        self._names: dict[str, str] = {}  # by body
        self._needs: dict[str, Sequence[Sequence[str]]] = {}
        self._choices: dict[str, list[str]] = {}
        self._optional: dict[str, int] = {}
        self._serial = 0
        self._repetitions = self._characters = self._steps = 0

    def add(self, body: str, *, needs: Sequence[Sequence[str]] = ((),), optional: int = 0) -> str:
        """The name of a rule with this body; the same name for the same body.

        needs: ways to satisfy it, each the rules that all have to be satisfied for that.
        optional: how many properties may be left out, in an object's rule.
        """
        if body not in self._names:
            name = self._names[body] = self.reserve()
            self._put(name, body)
            self._needs[name] = needs
            self._optional[name] = optional
        return self._names[body]

    def define(self, name: str, body: str) -> None:
        """Give a reserved name a body of its own, from which a finite text can come."""
        self._repetitions += 1
        self._put(name, body)
        self._needs[name] = ((),)

    def spend(self, steps: int) -> None:
        """Count some work. Raises GrammarTooLarge once it is too much for one schema."""
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise GrammarTooLarge(
                "patterns and enums have too many ways to be matched", allowed=f"{MOST_STEPS} steps of work"
            )

    def reserve(self) -> str:
        """A name for what will be given to `choose` later. Raises GrammarTooLarge."""
        self._serial += 1
        if self._serial > MOST_RULES:
            raise GrammarTooLarge("the schema has too many parts", allowed=f"at most {MOST_RULES} rules")
        return f"r{self._serial}"

    def choose(self, name: str, options: Iterable[str]) -> str:
        """Let a reserved name stand for one of these rules."""
        self._choices[name] = list(options)
        return name

    def primitive(self, kind: str) -> str:
        """A built-in rule: `string`, `number`, `integer`, `boolean`, `null`, `char`, `comma` or `colon`."""
        if kind not in self._bodies:
            self._put(kind, _PRIMITIVES[kind])
            self._needs[kind] = ((),)
            for part in _PARTS.get(kind, ()):
                self.primitive(part)
        return kind

    def finished(self, root: str) -> str:
        """The grammar as text, beginning with `root`. Raises NoEnd, TooAmbiguous, GrammarTooLarge."""
        self._refuse_circles()
        refuse_ambiguous(self._bodies, self._choices, self._expanded, self._optional)
        self._refuse_endless()
        for name in self._choices:
            self._put(name, " | ".join(self._expanded(name)))
        return "\n".join(f"{name} ::= {body}" for name, body in {"root": root, **self._bodies}.items()) + "\n"

    def _refuse_circles(self) -> None:
        """JSON Schema leaves open what a schema means that is its own alternative, without more."""
        open_choices = dict(self._choices)
        while free := [
            name
            for name, options in open_choices.items()
            if not any(option in open_choices for option in options)
        ]:
            for name in free:
                del open_choices[name]
        if open_choices:
            raise NoEnd("the schema refers to itself without a value in between")

    def _put(self, name: str, body: str) -> None:
        self._bodies[name] = body
        self._characters += len(f"{name} ::= {body}\n")
        self._repetitions += sum(int(most or least) for least, most in _REPETITION.findall(body))
        if self._repetitions > MOST_REPETITIONS or self._characters > MOST_CHARACTERS:
            raise GrammarTooLarge(
                f"the schema asks for {self._repetitions} repetitions in {self._characters} characters",
                allowed=f"at most {MOST_REPETITIONS} and {MOST_CHARACTERS}",
                remedy="Ask for shorter strings and arrays, or for fewer properties.",
            )

    def _expanded(self, name: str) -> list[str]:
        """The rules with bodies that a choice comes down to, through other choices."""
        found: dict[str, None] = {}
        seen, todo = set(), [name]
        while todo:
            each = todo.pop()
            if each in seen:
                continue
            seen.add(each)
            if each in self._choices:
                todo.extend(reversed(self._choices[each]))
            else:
                found[each] = None
        return list(found)

    def _refuse_endless(self) -> None:
        """From every rule a finite text must come, or a model that takes that way never comes to an end."""
        ways = self._needs | {
            name: [[option] for option in options] for name, options in self._choices.items()
        }
        ending: set[str] = set()
        before = -1
        while before < len(ending):
            before = len(ending)
            ending.update(
                name
                for name, choices in ways.items()
                if name not in ending and any(all(need in ending for need in choice) for choice in choices)
            )
        if len(ending) < len(ways):
            raise NoEnd(
                "no finite value satisfies the schema, or a part of it",
                remedy="Is something required of itself, for ever?",
            )
