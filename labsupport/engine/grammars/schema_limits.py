"""What a schema may hold: how much, which keywords together, and references to itself alone.

Right means: every refusal names the place in the schema, as a JSON pointer, and what would have been right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from labsupport.engine.grammars.gbnf import LARGEST_REPETITION
from labsupport.errors import LabsupportError

MOST_VALUES = 5_000
DEEPEST = 64
MOST_CHARACTERS = 50_000

KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": (),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "boolean": (),
    "null": (),
}
_ALONE = ("$ref", "allOf", "anyOf")
_REMARKS = frozenset(
    ("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment",
     "$schema", "$defs", "definitions")
)  # fmt: skip
"""Keywords that say nothing about what is valid; definitions count where they are referred to."""


class SchemaRefused(LabsupportError):
    """A schema that no answer can be held to, and why."""


def refuse_large(schema: Any) -> None:
    """Raise SchemaRefused unless the schema is JSON of a moderate size. Looks no further than the limits."""
    values = characters = 0
    todo = [(schema, 1)]
    while todo:
        value, depth = todo.pop()
        values += 1
        if isinstance(value, Mapping):
            todo += [(child, depth + 1) for child in value.values()]
            characters += sum(map(len, value))
        elif isinstance(value, list):
            todo += [(child, depth + 1) for child in value]
        elif isinstance(value, str):
            characters += len(value)
        if depth > DEEPEST or values + len(todo) > MOST_VALUES or characters > MOST_CHARACTERS:
            raise SchemaRefused(
                "the schema is too large",
                allowed=f"{MOST_VALUES} values, nested {DEEPEST} deep, {MOST_CHARACTERS} characters",
            )
    try:
        json.dumps(schema, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise SchemaRefused(
            "the schema holds NaN, an infinity, a number of thousands of digits or half a surrogate pair",
            allowed="JSON in Unicode",
        ) from error


def keyword_for(schema: Mapping[str, Any], where: str) -> str:
    """The keyword that says how to read a schema: one that stands alone, `enum`, `const`, `type`, or a type.

    Raises SchemaRefused for keywords that are not known, or not together.
    """
    given = [name for name in schema if name not in _REMARKS and not name.startswith("x-")]
    known = {"type", "enum", "const", *_ALONE, *(name for names in KEYWORDS.values() for name in names)}
    if unknown := [name for name in given if name not in known]:
        remedy = "Use anyOf." if unknown[0] == "oneOf" else ""
        raise SchemaRefused(
            f"the keyword {unknown[0][:80]!r} is not supported{at(where)}",
            allowed=", ".join(sorted(known)),
            remedy=remedy,
        )
    for name in _ALONE:
        if name in given:
            return _alone(name, schema, given, where)
    for name in ("enum", "const"):
        if name in given:
            _refuse_beside(name, [other for other in given if other not in (name, "type")], where)
            _refuse_other_types(schema, where)
            return name
    if not given:
        raise SchemaRefused(
            f"a schema with remarks alone{at(where)}", allowed='a type, or "true" for any value'
        )
    kinds = _kinds(schema, where) if "type" in given else _implied(given)
    bounds = [name for name in given if name in KEYWORDS["integer"]]
    if bounds and ("number" in kinds or "type" not in given):
        raise SchemaRefused(
            f"{bounds[0]} of a number that need not be an integer{at(where)}",
            allowed='bounds beside "type": "integer"',
        )
    for name in given:
        if name != "type" and not any(name in KEYWORDS[kind] for kind in kinds):
            raise SchemaRefused(
                f"{name} beside type {' or '.join(kinds)}{at(where)}",
                allowed="keywords of one and the same type",
            )
    return "type" if "type" in given else kinds[0]


def count(schema: Mapping[str, Any], name: str, where: str) -> int | None:
    """A length or a number of items, or None. Raises SchemaRefused, also where least is above most."""
    if name not in schema:
        return None
    value = schema[name]
    if type(value) is not int or not 0 <= value <= LARGEST_REPETITION:
        raise SchemaRefused(f"{name} is {str(value)[:80]}{at(where)}", allowed=f"0 to {LARGEST_REPETITION}")
    least = schema.get(name.replace("max", "min"), 0)
    if name.startswith("max") and isinstance(least, int) and least > value:
        raise SchemaRefused(
            f"{name} is {value}, below the least, {least}{at(where)}", allowed="no less than that"
        )
    return value


def resolved(schema: Any, pointer: str) -> Any:
    """What a reference within the schema points to (RFC 6901, as a fragment). Raises SchemaRefused."""
    found = schema
    for step in unquote(pointer.removeprefix("#")).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isascii() and key.isdigit() and int(key[:9]) < len(found):
            found = found[int(key[:9])]
        else:
            raise SchemaRefused(
                f"$ref is {pointer[:80]!r}, and there is nothing", allowed="a place in the schema"
            )
    if pointer not in ("", "#") and not pointer.startswith("#/"):
        raise SchemaRefused(f"$ref is {pointer[:80]!r}", allowed="# or a path that begins with #/")
    return found


def at(where: str) -> str:
    """Where that is, for the end of a sentence."""
    return f" (at {where[:200]})" if where else ""


def _alone(name: str, schema: Mapping[str, Any], given: list[str], where: str) -> str:
    _refuse_beside(name, [other for other in given if other != name], where)
    if name != "$ref" and (not isinstance(schema[name], list) or not schema[name]):
        raise SchemaRefused(f"{name} is no list of schemas{at(where)}", allowed="a list of at least one")
    if name == "allOf" and len(schema[name]) > 1:
        raise SchemaRefused(
            f"allOf of {len(schema[name])} schemas{at(where)}", allowed="one, as around a $ref"
        )
    return name


def _refuse_beside(name: str, others: list[str], where: str) -> None:
    if others:
        raise SchemaRefused(
            f"{others[0]} beside {name}{at(where)}", allowed=f"{name} without other conditions"
        )


def _kinds(schema: Mapping[str, Any], where: str) -> list[str]:
    given = schema["type"]
    kinds = given if isinstance(given, list) else [given]
    if not kinds or any(not isinstance(kind, str) or kind not in KEYWORDS for kind in kinds):
        raise SchemaRefused(f"type is {str(given)[:80]!r}{at(where)}", allowed=", ".join(KEYWORDS))
    return kinds


def _implied(given: list[str]) -> list[str]:
    """The type to which a keyword belongs: a value of it satisfies the schema."""
    return [kind for kind, names in KEYWORDS.items() if given[0] in names]


def _refuse_other_types(schema: Mapping[str, Any], where: str) -> None:
    if "type" not in schema:
        return
    kinds = _kinds(schema, where)
    values = schema.get("enum", [schema.get("const")])
    for value in values if isinstance(values, list) else []:
        if not any(_is_a(kind, value) for kind in kinds):
            raise SchemaRefused(
                f"the value {json.dumps(value)[:80]} is not of type {' or '.join(kinds)}{at(where)}",
                allowed="values of that type",
            )


def _is_a(kind: str, value: Any) -> bool:
    match value:
        case None:
            return kind == "null"
        case bool():
            return kind == "boolean"
        case int():
            return kind in ("integer", "number")
        case float():
            return kind == "number"
        case str():
            return kind == "string"
        case list():
            return kind == "array"
        case _:
            return kind == "object"
