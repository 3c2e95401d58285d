"""Schemas become grammars whose every text they accept, or are refused by name and in no time."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
import time

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labsupport.engine.config import EngineConfig
from labsupport.engine.grammars.json_schema import to_grammar
from labsupport.engine.grammars.schema_limits import SchemaRefused
from labsupport.engine.messages import SamplingParams
from labsupport.engine.offline import OfflineEngine

STRING, INTEGER = {"type": "string", "maxLength": 5}, {"type": "integer"}


def fields(**properties) -> dict:
    return {"type": "object", "properties": properties, "required": list(properties)}


TREE = {
    "$defs": {
        "string": fields(
            value=INTEGER, more={"type": "array", "items": {"$ref": "#/$defs/string"}, "maxItems": 1}
        )
    },
    "$ref": "#/$defs/string",
}
TAKEN = {
    "a string in quotation marks": {"enum": ['a"b', "c\\d", "e\nf", "☃", "\u2028", "", "]"]},
    "values of any kind": {"enum": [1.5, None, True, [1, {"a": []}], "1.5", -7]},
    "a constant": {"const": {"a": ['"', 1]}},
    "a definition that is called string": TREE,
    "what may be left out": {
        "type": "object",
        "properties": {"a": INTEGER, "b": STRING, "c": {"type": "null"}, "d": {"type": "boolean"}},
        "required": ["c"],
        "additionalProperties": False,
    },
    "nothing required": {"type": "object", "properties": {"a": INTEGER, "b": INTEGER}},
    "no properties": {"type": "object", "additionalProperties": False},
    "a map": {"type": "object", "additionalProperties": {"type": "boolean"}},
    "a key in need of escapes": fields(**{'"\\\n]': INTEGER}),
    "a tuple": {"type": "array", "prefixItems": [INTEGER, STRING], "items": False, "minItems": 2},
    "two to three": {"type": "array", "items": INTEGER, "minItems": 2, "maxItems": 3},
    "at least one": {"type": "array", "items": {"enum": [1]}, "minItems": 1},
    "none": {"type": "array", "items": INTEGER, "maxItems": 0},
    "one of two objects": {"anyOf": [fields(a=INTEGER), fields(b=STRING)]},
    "some types": {"type": ["integer", "null", "boolean"]},
    "a reference in another": {
        "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": STRING},
        "$ref": "#/$defs/a",
    },
    "an escaped reference": {"$defs": {"a/b~c": INTEGER}, "$ref": "#/$defs/a~1b~0c"},
    "bounds on integers": fields(
        percent={"type": "integer", "minimum": 0, "maximum": 100},
        below={"type": "integer", "exclusiveMaximum": 0},
        either={"anyOf": [{"type": "integer", "minimum": -5, "maximum": 17}, {"type": "null"}]},
        wide={"type": ["integer", "null"], "minimum": -(2**63), "exclusiveMaximum": 2**63},
    ),
    "remarks": {"title": "T", "description": "D", "default": 3, "x-order": 1, **INTEGER},
    **{f"a {name}": {"type": "string", "format": name} for name in ("date", "time", "date-time", "uuid")},
}
PATTERNS = [
    "^[a-z]{2,4}$", "colou?r", "^(a|b)+c?$", "^\\d{3}-\\d{4}$", "^[^\"\\\\]{1,3}$",
    "^\\w+@\\w+\\.(com|org)$",
    "^(?:x|yy){2}$", "^\\S{1,4}$", "^[\\s\"]{1,2}$", "^.{2}$", "^a{2,}?b$", "^\\u0041\\x42$", "^[\\]\\-a]+$",
    "^$", "^a|b$", "(.{0,3}){0,3}", "^(a*)*$", "^[\\x01]$", "^\\D\\W$",
    "^[^\\w]{3}$", "^[^\\D]{2}$", "^[^\\s-]$", "^[+-]?[0-9]+$", "\\$\\^\\/",
]  # fmt: skip


@pytest.fixture(scope="module")
def engine(tiny_model):
    with OfflineEngine(EngineConfig(threads=1, model=str(tiny_model))) as engine:
        yield engine


def answers(engine, schema, count=6) -> list:
    """What a model that says anything says."""
    how = [
        SamplingParams(max_tokens=400, temperature=50, seed=seed, grammar=to_grammar(schema))
        for seed in range(count)
    ]
    told = engine.generate([[65]] * count, how)
    return [json.loads(each.text) for each in told if each.finish_reason == "stop"]


@pytest.mark.parametrize("name", TAKEN)
def test_every_answer_is_json_that_the_schema_accepts(engine, name):
    told = answers(engine, TAKEN[name])
    assert told
    for answer in told:
        jsonschema.validate(answer, TAKEN[name])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_answer_matches_its_pattern(engine, pattern):
    ended = {"type": "array", "items": {"type": "string", "pattern": pattern}, "minItems": 3, "maxItems": 3}
    found = [text for answer in answers(engine, ended) for text in answer]
    assert all(re.search(pattern, text) for text in found)
    assert found or "*" in pattern or "+" in pattern  # which may go on until the limit


def nested(depth: int) -> dict:
    schema: dict = {}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


PAIR = [{"type": "array", "items": {"$ref": "#"}}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]
REFUSED = {
    "an unknown type": ({"type": "text"}, "type is 'text'"),
    "an unknown keyword": ({"type": "string", "maxLenght": 3}, "'maxLenght'"),
    "a bound on numbers": ({"type": "number", "minimum": 3}, "minimum of a number"),
    "a bound on some numbers": ({"type": ["integer", "number"], "maximum": 3}, "maximum of a number"),
    "a bound on anything": ({"exclusiveMinimum": 3}, "exclusiveMinimum of a number"),
    "a bound on a string": ({"type": "string", "minimum": 3}, "minimum beside type string"),
    "a bound of an older draft": ({"type": "integer", "exclusiveMinimum": True}, "exclusiveMinimum is True"),
    "a bound of too many digits": ({"type": "integer", "maximum": 1e300}, "maximum is 1e+300"),
    "a bound of thousands of digits": ({"type": "integer", "maximum": 10**5000}, "thousands of digits"),
    "no integer between": (
        fields(a={"type": "integer", "minimum": 3, "exclusiveMaximum": 3}),
        "#/properties/a",
    ),
    "no integer between fractions": ({"type": "integer", "minimum": 0.2, "maximum": 0.8}, "no integer is"),
    "the place": (fields(a={"type": "array", "items": {"multipleOf": 3}}), "#/properties/a/items"),
    "oneOf": ({"oneOf": [STRING]}, "'oneOf'"),
    "nothing fits": (False, "no schema"),
    "no values": ({"enum": []}, "no values"),
    "less than the least": ({"type": "string", "minLength": 5, "maxLength": 3}, "below the least"),
    "required for ever": (fields(a={"$ref": "#"}), "no finite value"),
    "a part without end": (
        {
            "$defs": {"loop": fields(a={"$ref": "#/$defs/loop"})},
            "type": "object",
            "properties": {
                "x": {"$ref": "#/$defs/loop"},
                "y": {"anyOf": [{"$ref": "#/$defs/loop"}, INTEGER]},
            },
        },
        "no finite value",
    ),
    "a circle": ({"$ref": "#"}, "refers to itself"),
    "a choice that contains itself": ({"anyOf": [{"$ref": "#"}, INTEGER]}, "refers to itself"),
    "a circle of two": (
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        "refers to itself",
    ),
    "a reference to nothing": ({"$ref": "#/$defs/none"}, "there is nothing"),
    "a remote reference": ({"$ref": "https://example.com/schema.json"}, "nothing is fetched"),
    "a file": ({"$ref": "file:///etc/passwd"}, "nothing is fetched"),
    "a megabyte": ({"enum": ["a" * 1_000_000]}, "too large"),
    "a megabyte of values": ({"enum": list(range(200_000))}, "too large"),
    "a thousand levels": (nested(1000), "too large"),
    "many names for one part": (
        {
            "anyOf": [{"anyOf": [{"type": "null"}] * 1500}]
            + [
                {"$ref": f"#/{''.join(spelled)}/{'0' * zeros}"}
                for spelled in itertools.product(*((letter, f"%{ord(letter):x}") for letter in "anyOf"))
                for zeros in range(1, 16)
            ]
        },
        "too many parts",
    ),
    "a huge length": ({"type": "string", "maxLength": 10**9}, "maxLength is 1000000000"),
    "a huge array": ({"type": "array", "items": STRING, "minItems": 10**6}, "minItems"),
    "a negative length": ({"type": "string", "minLength": -1}, "minLength is -1"),
    "many long strings": (
        fields(**{f"p{place}": {"type": "string", "maxLength": 1000 - place} for place in range(40)}),
        "repetitions",
    ),
    "many that may be left out": (
        {"type": "object", "properties": {f"p{place}": INTEGER for place in range(200)}},
        "may be left out",
    ),
    "an anyOf alike that contains itself": ({"anyOf": [*PAIR, INTEGER]}, "too many ways"),
    "many objects alike of which much may be left out": (
        {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {f"p{place}": INTEGER for place in range(50)} | {f"z{own}": STRING},
                    "required": [f"z{own}"],
                }
                for own in range(3)
            ]
        },
        "too many ways",
    ),
    "a long chain": (
        {
            "$defs": {f"a{place}": {"$ref": f"#/$defs/a{place + 1}"} for place in range(1600)},
            "$ref": "#/$defs/a0",
        },
        "500 references",
    ),
    "many large patterns": (
        {"anyOf": [{"type": "string", "pattern": f"^(a|b)*a(a|b){{7}}{place}$"} for place in range(40)]},
        "too many ways",
    ),
    "required and not there": ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, "'b'"),
    "half a character": ({"enum": ["\ud800"]}, "surrogate"),
    "not a number": ({"const": float("nan")}, "NaN"),
    "a value of another type": ({"type": "string", "enum": [1]}, "not of type string"),
    "an email": ({"type": "string", "format": "email"}, "'email'"),
    **{
        f"the pattern {pattern[:20]}": ({"type": "string", "pattern": pattern}, says)
        for pattern, says in {
            "(?=a)": "begins with",
            "(a)\\1": "\\1",
            "(": "without its",
            ")": "closes nothing",
            "[a": "without its",
            "[b-a]": "range",
            "[^\\s\\S]": "without characters",
            "a**": "quantifiers",
            "*a": "* there",
            "a^b": "^ there",
            "\\bword\\b": "\\b",
            "a{5,2}": "repetition",
            "a{100000}": "repetition",
            "(" * 600 + ")" * 600: "characters",
            "(" * 50 + ")" * 50: "inside each other",
            "(a|b)*a(a|b){25}": "too many ways",
            "((a{0,99}){0,99}){0,99}": "too many ways",
        }.items()
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_answer_can_be_held_to_is_refused_by_name_and_at_once(name):
    schema, says = REFUSED[name]
    begin = time.thread_time()
    with pytest.raises(SchemaRefused, match=re.escape(says)):
        to_grammar(schema)
    assert time.thread_time() - begin < 3


def test_no_text_in_a_schema_becomes_a_rule():
    texts = ['"', "\\", '" | root', '\n"\nroot ::= "x"\n#', "]", "\\x", "{0,9}", "a::=b", "\r\n", "\x7f\x85"]
    grammar = to_grammar({"anyOf": [{"enum": texts}, fields(**dict.fromkeys(texts, INTEGER))]})
    names = re.findall(r"^([a-z]+\d*) ::= ", grammar, flags=re.MULTILINE)
    assert len(names) == len(set(names)) == grammar.count("::=") == len(grammar.splitlines())


KEYWORDS = [
    "type", "enum", "const", "$ref", "anyOf", "allOf", "properties", "required", "additionalProperties",
    "items",
    "prefixItems", "minItems", "maxItems", "minLength", "maxLength", "pattern", "format", "title", "$defs",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
]  # fmt: skip
KEYS = st.sampled_from([*KEYWORDS, "a", "b"])
WORDS = ["object", "array", "string", "integer", "#", "#/items", "#/$defs", "date", "^a{2}|[b-d]+$", "a"]
LEAVES = st.sampled_from(WORDS) | st.integers(-1, 3) | st.booleans() | st.none() | st.text(max_size=4)
ANYTHING = st.deferred(
    lambda: LEAVES | st.lists(ANYTHING, max_size=3) | st.dictionaries(KEYS, ANYTHING, max_size=4)
)


@settings(max_examples=400, deadline=None)
@given(ANYTHING)
def test_whatever_comes_as_a_schema_is_taken_or_refused(schema):
    with contextlib.suppress(SchemaRefused):
        assert to_grammar(schema).startswith("root ::= ")


def test_random_schemas_are_taken_or_refused_and_nothing_else(engine):
    random.seed(5)

    def some(depth: int):
        kinds = [
            lambda: {
                "type": random.choice(["string", "integer", "null", "boolean", "number", "object", "array"])
            },
            lambda: {"enum": random.sample([1, "a", None, "b c", [1]], 2)},
            lambda: {"type": "array", "items": some(depth - 1), "maxItems": random.randint(0, 3)},
            lambda: {"anyOf": [some(depth - 1), some(depth - 1)]},
            lambda: {"type": "object", "properties": {"a": some(depth - 1), "b": some(depth - 1)}},
            lambda: {"type": "string", "pattern": "^[ab]{0,3}$"},
            lambda: {"$ref": random.choice(["#", "#/properties/a", "#/anyOf/0"])},
            lambda: {"type": "string", "minLength": random.randint(-1, 3)},
        ]
        return random.choice(kinds if depth else kinds[:2])()

    taken = 0
    for _ in range(40):
        schema = some(3)
        try:
            told = answers(engine, schema, count=1)
        except SchemaRefused:
            continue
        taken += 1
        for answer in told:
            jsonschema.validate(answer, schema)
    assert taken > 15
