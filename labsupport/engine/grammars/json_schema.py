"""From a JSON schema to a grammar of which every text is JSON that the schema accepts.

Right means: whatever comes out is accepted (by `jsonschema`, say), so a keyword that no grammar can hold to
is refused by name and never ignored; and no schema takes long, is fetched from anywhere, or becomes a
grammar that is large, left-recursive, too ambiguous or without an end. The converse is not promised: an
object has its properties in the schema's order and no others, and there is at most one blank after a comma
or a colon, so that a model cannot fill its answer with blanks. Strings, numbers and arrays without a bound
in the schema may be as long as the request's `max_tokens` lets them: an answer cut by it ends with `length`,
and is no JSON.

llama_cpp has a converter (`llama_grammar.json_schema_to_gbnf`, 0.3.36). It is not used: a quotation mark in
an `enum` ends its literal early, strings may hold raw line ends, a definition called `string` is taken for
the built-in one, and `minimum` of a number is ignored.

What it takes is close to what OpenAI's Structured Outputs take ("Supported schemas"): `type`, `properties`,
`required`, `additionalProperties`, `items`, `prefixItems`, `minItems`, `maxItems`, `minLength`, `maxLength`,
`pattern`, `format`, `minimum`, `maximum` and the exclusive ones of an integer, `enum`, `const`, `anyOf` and
`$ref` within the schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from labsupport.engine.grammars import gbnf
from labsupport.engine.grammars.ambiguity import TooAmbiguous
from labsupport.engine.grammars.automaton import Either, Expression, text, to_rules
from labsupport.engine.grammars.integers import bounds, integer_rule
from labsupport.engine.grammars.pattern import PatternRefused, read
from labsupport.engine.grammars.rules import GrammarTooLarge, NoEnd, Rules
from labsupport.engine.grammars.schema_limits import (
    SchemaRefused,
    at,
    count,
    keyword_for,
    refuse_large,
    resolved,
)

Schema = Mapping[str, Any] | bool
MOST_OPTIONAL = 50
MOST_REFERENCES = 500
ANY_OBJECT: Schema = {"type": "object"}
"""What `{"type": "json_object"}` asks for."""

_FORMATS = {
    "date": '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | "1" [0-9] | "2" [0-8])',
    "time": '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? '
    '("Z" | [+-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])',
    "uuid": '[0-9a-f]{8} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{12}',
}
_FORMATS["date-time"] = f'{_FORMATS["date"]} "T" {_FORMATS["time"]}'


def to_grammar(schema: Schema) -> str:
    """The grammar, in GBNF, from its symbol `root`. Raises SchemaRefused with the place of what is wrong."""
    refuse_large(schema)
    try:
        return _Converter(schema).convert()
    except (GrammarTooLarge, NoEnd, TooAmbiguous) as error:
        raise SchemaRefused(error.problem, allowed=error.allowed, remedy=error.remedy) from error


class _Converter:
    """One schema on its way; references wait in a queue, so that none of them can recurse too deep."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._rules = Rules()
        self._referred: dict[str, str] = {}
        self._queue: list[tuple[str, str]] = []
        self._any = ""
        self._automata: dict[Expression, str] = {}

    def convert(self) -> str:
        root = self._reference("#", "")
        while self._queue:
            pointer, name = self._queue.pop()
            self._rules.choose(name, [self._value(resolved(self._schema, pointer), pointer)])
        return self._rules.finished(root)

    def _reference(self, pointer: str, where: str) -> str:
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            raise SchemaRefused(
                f"$ref is {str(pointer)[:80]!r}{at(where)}",
                allowed="a place in the schema itself, such as #/$defs/NAME: nothing is fetched",
            )
        if len(self._referred) > MOST_REFERENCES:
            raise SchemaRefused(
                f"the schema has more than {MOST_REFERENCES} references", allowed="fewer places to refer to"
            )
        if pointer not in self._referred:
            self._referred[pointer] = self._rules.reserve()
            self._queue.append((pointer, self._referred[pointer]))
        return self._referred[pointer]

    def _value(self, schema: Any, where: str) -> str:
        """The name of a rule for a schema that stands at `where`."""
        if schema is True or schema == {}:
            return self._anything()
        if not isinstance(schema, Mapping):
            raise SchemaRefused(
                f"{json.dumps(schema)[:80]} is no schema that a value can satisfy{at(where)}",
                allowed="an object of keywords, or true",
            )
        keyword = keyword_for(schema, where)
        match keyword:
            case "$ref":
                return self._reference(schema["$ref"], where)
            case "allOf":
                return self._value(schema["allOf"][0], f"{where}/allOf/0")
            case "anyOf":
                options = [
                    self._value(option, f"{where}/anyOf/{place}")
                    for place, option in enumerate(schema["anyOf"])
                ]
                return self._rules.choose(self._rules.reserve(), options)
            case "enum" | "const":
                return self._one_of(schema["enum"] if keyword == "enum" else [schema["const"]], where)
        types = schema["type"] if keyword == "type" else [keyword]
        kinds = [types] if isinstance(types, str) else types
        return self._rules.choose(self._rules.reserve(), [self._of(kind, schema, where) for kind in kinds])

    def _of(self, kind: str, schema: Mapping[str, Any], where: str) -> str:
        makers: dict[str, Callable[[Mapping[str, Any], str], str]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
        }
        if kind in makers:
            return makers[kind](schema, where)
        return self._rules.primitive(kind)

    def _anything(self) -> str:
        if not self._any:
            self._any = self._rules.reserve()
            simple = [self._rules.primitive(kind) for kind in ("string", "number", "boolean", "null")]
            self._rules.choose(self._any, [self._map(self._any), self._list(self._any, 0, None), *simple])
        return self._any

    def _one_of(self, values: Any, where: str) -> str:
        if not isinstance(values, list) or not values:
            raise SchemaRefused(f"enum has no values{at(where)}", allowed="a list of at least one")
        spelled = (json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)
        return to_rules(Either(tuple(map(text, dict.fromkeys(spelled)))), self._rules, gbnf.characters)

    def _integer(self, schema: Mapping[str, Any], where: str) -> str:
        between = bounds(schema, where)
        return integer_rule(*between, self._rules) if between else self._rules.primitive("integer")

    # Strings

    def _string(self, schema: Mapping[str, Any], where: str) -> str:
        least, most = count(schema, "minLength", where), count(schema, "maxLength", where)
        given = [name for name in ("pattern", "format") if name in schema]
        if len(given) > 1 or (given and (least is not None or most is not None)):
            raise SchemaRefused(
                f"{given[0]} beside other conditions on a string{at(where)}",
                allowed="one of pattern, format, or lengths",
            )
        if "format" in schema:
            if schema["format"] not in list(_FORMATS):
                raise SchemaRefused(
                    f"format is {str(schema['format'])[:80]!r}{at(where)}", allowed=", ".join(_FORMATS)
                )
            return self._rules.add(f'"\\"" {_FORMATS[schema["format"]]} "\\""')
        if "pattern" in schema:
            return self._matching(schema["pattern"], where)
        if least is None and most is None:
            return self._rules.primitive("string")
        inside = gbnf.repeated(self._rules.primitive("char"), least or 0, most)
        return self._rules.add(f'"\\"" {inside} "\\""')

    def _matching(self, pattern: Any, where: str) -> str:
        if not isinstance(pattern, str):
            raise SchemaRefused(f"pattern is {str(pattern)[:80]}{at(where)}", allowed="a regular expression")
        try:
            expression = read(pattern)
        except PatternRefused as error:
            raise SchemaRefused(f"{error.problem}{at(where)}", allowed=error.allowed) from error
        if expression not in self._automata:
            self._automata[expression] = to_rules(expression, self._rules, gbnf.in_json)
        return self._rules.add(f'"\\"" {self._automata[expression]} "\\""')

    # Arrays

    def _array(self, schema: Mapping[str, Any], where: str) -> str:
        least, most = count(schema, "minItems", where) or 0, count(schema, "maxItems", where)
        if "prefixItems" in schema:
            return self._tuple(schema, where, least, most)
        item = self._value(schema.get("items", True), f"{where}/items")
        return self._list(item, least, most)

    def _tuple(self, schema: Mapping[str, Any], where: str, least: int, most: int | None) -> str:
        items = schema["prefixItems"]
        if not isinstance(items, list) or not items or schema.get("items", False) is not False:
            raise SchemaRefused(
                f"prefixItems has none, or items beside it{at(where)}",
                allowed="a list of schemas, items false",
            )
        if not least <= len(items) <= (len(items) if most is None else most):
            raise SchemaRefused(
                f"an array of {len(items)} prefixItems breaks its own minItems or maxItems{at(where)}",
                allowed="as many as there are prefixItems, or neither",
            )
        names = [self._value(item, f"{where}/prefixItems/{place}") for place, item in enumerate(items)]
        inside = f" {self._rules.primitive('comma')} ".join(names)
        return self._rules.add(f'"[" {inside} "]"', needs=[names])

    def _list(self, item: str, least: int, most: int | None) -> str:
        if most == 0:
            return self._rules.add('"[]"')
        more = self._rules.add(f"{self._rules.primitive('comma')} {item}", needs=[[item]])
        rest = gbnf.repeated(more, max(least, 1) - 1, None if most is None else most - 1)
        inside = f"{item} {rest}" if least else f"({item} {rest})?"
        return self._rules.add(f'"[" {inside} "]"', needs=[[item]] if least else [[]])

    # Objects

    def _map(self, value: str) -> str:
        """An object of any keys."""
        pair = f"{self._rules.primitive('string')} {self._rules.primitive('colon')} {value}"
        more = f"({self._rules.primitive('comma')} {pair})*"
        return self._rules.add(f'"{{" ({pair} {more})? "}}"')

    def _object(self, schema: Mapping[str, Any], where: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, Mapping) or not isinstance(required, list):
            raise SchemaRefused(
                f"properties is no object, or required no list{at(where)}", allowed="an object and a list"
            )
        if missing := [name for name in required if not isinstance(name, str) or name not in properties]:
            raise SchemaRefused(
                f"required names {str(missing[0])[:80]!r}, which is not among the properties{at(where)}",
                allowed="names of properties",
            )
        optional = len(properties) - len(needed := set(required))
        if optional > MOST_OPTIONAL:
            raise SchemaRefused(
                f"{optional} properties may be left out{at(where)}",
                allowed=f"{MOST_OPTIONAL}: after each property, any of those that follow may come",
            )
        others = schema.get("additionalProperties", True)
        if not properties:
            if others is False:
                return self._rules.add('"{}"')
            return self._map(self._value(others, f"{where}/additionalProperties"))
        pairs = []
        for name, value in properties.items():
            place = f"{where}/properties/{name}"
            rule = self._value(value, place)
            key = gbnf.literal(json.dumps(name, ensure_ascii=False))
            pairs.append(
                (
                    self._rules.add(f"{key} {self._rules.primitive('colon')} {rule}", needs=[[rule]]),
                    name in needed,
                )
            )
        return self._in_order(pairs)

    def _in_order(self, pairs: list[tuple[str, bool]]) -> str:
        """An object of these pairs in their order, where those not required may be left out."""
        comma = self._rules.primitive("comma")
        first = rest = '""'  # what may follow before the first pair that is there, and after it
        first_needs: list[str] = []
        rest_needs: list[str] = []
        for pair, is_required in reversed(pairs):
            begin = f"{pair} {rest}"
            go_on = f"{comma} {pair} {rest}"
            if is_required:
                first, first_needs = begin, [pair, *rest_needs]
                rest, rest_needs = go_on, [pair, *rest_needs]
            else:
                first = self._rules.add(f"{begin} | {first}", needs=[first_needs])
                rest = self._rules.add(f"{go_on} | {rest}", needs=[rest_needs])
                first_needs, rest_needs = [first], [rest]
        optional = sum(not is_required for _, is_required in pairs)
        return self._rules.add(f'"{{" {first} "}}"', needs=[first_needs], optional=optional)
