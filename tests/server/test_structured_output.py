"""`response_format` over HTTP: JSON that the schema accepts, streamed or not; a bad schema harms nobody."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import jsonschema
import openai
import pydantic
import pytest
from asking import ASK, is_idle

import labsupport

SCHEMA = {
    "type": "object",
    "properties": {
        "term": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["cache", "model", "other"]},
        "sizes": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
        "sure": {"type": ["boolean", "null"]},
    },
    "required": ["term", "kind"],
    "additionalProperties": False,
}


def as_schema(schema) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def chat(client, form, **options):
    return client.chat.completions.create(
        model="pocket",
        messages=ASK,
        response_format=form,
        **{"max_tokens": 300, "temperature": 0, **options},
    )


def streamed(chunks) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@pytest.fixture(scope="module")
def client_alone():
    """Nobody else asks, and no prefix is kept: the same request meets the same memory, bit for bit."""
    with labsupport.serve("pocket", prefix_slots=0) as server:
        yield server.openai()


@pytest.mark.parametrize("how", [{"temperature": 0}, {"temperature": 1.5, "seed": 4, "top_p": 0.9}])
def test_an_answer_follows_its_schema_streamed_or_not(client_alone, how):
    client = client_alone
    (whole,) = chat(client, as_schema(SCHEMA), **how).choices
    chunks = list(chat(client, as_schema(SCHEMA), stream=True, **how))
    assert whole.finish_reason == chunks[-1].choices[0].finish_reason == "stop"
    assert streamed(chunks) == whole.message.content
    jsonschema.validate(json.loads(whole.message.content), SCHEMA)


def test_plain_completions_follow_a_schema_too_each_choice_its_own_way(client):
    answer = client.completions.create(
        model="pocket",
        prompt="JSON: ",
        n=4,
        temperature=1.5,
        seed=2,
        max_tokens=300,
        extra_body={"response_format": as_schema(SCHEMA)},
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.text), SCHEMA)
    assert len({choice.text for choice in answer.choices}) > 1


def test_the_clients_own_classes_come_back_filled_in(client):
    class Step(pydantic.BaseModel):
        effort: Literal["small", "large"]
        count: int

    class Plan(pydantic.BaseModel):
        title: str = pydantic.Field(max_length=10)
        steps: list[Step] = pydantic.Field(max_length=2)
        note: Step | None

    answer = client.chat.completions.parse(
        model="pocket", messages=ASK, response_format=Plan, temperature=0, max_tokens=300
    )
    assert isinstance(answer.choices[0].message.parsed, Plan)


def test_a_json_object_is_one_however_it_is_cut(client):
    (choice,) = chat(client, {"type": "json_object"}, max_tokens=60).choices
    assert choice.message.content.startswith("{")
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)
    (cut,) = chat(client, as_schema(SCHEMA), max_tokens=3).choices
    assert cut.finish_reason == "length"


def test_a_stop_string_and_a_bias_work_beside_a_schema(client):
    (stopped,) = chat(client, as_schema(SCHEMA), stop='"kind"').choices
    assert stopped.finish_reason == "stop"
    assert stopped.message.content.startswith('{"term"')
    assert "kind" not in stopped.message.content


NESTED: dict = {}
for _ in range(300):
    NESTED = {"items": NESTED, "type": "array"}
BAD = {
    "remote": {"$ref": "http://127.0.0.1:1/schema.json"},
    "circle": {"$ref": "#"},
    "unknown type": {"type": "text"},
    "ignored elsewhere": {"type": "number", "minimum": 3},
    "deep": NESTED,
    "megabyte": {"enum": ["x" * 1_000_000]},
    "megabytes of keys": {"type": "object", "properties": {f"p{place}": {} for place in range(50_000)}},
    "explosive pattern": {"type": "string", "pattern": "(a|b)*a(a|b){30}"},
    "nested repetition": {"type": "string", "pattern": "((.{0,99}){0,99}){0,99}"},
    "huge length": {"type": "string", "maxLength": 10**12},
    "alike in itself": {
        "anyOf": [
            {"type": "array", "items": {"$ref": "#"}},
            {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
            {"type": "null"},
        ]
    },
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_cannot_be_followed_is_a_400_before_the_stream_opens(client, name, stream):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, as_schema(BAD[name]), stream=stream)
    assert (refused.value.param, refused.value.code) == ("response_format", "invalid_schema")
    assert len(str(refused.value)) < 2000


def test_bad_schemas_harm_no_answer_beside_them_and_not_the_engine(server, client, engine):
    pid = engine()["pid"]
    free = {"model": "pocket", "messages": ASK, "temperature": 0, "max_tokens": 24}
    alone = client.chat.completions.create(**free).choices[0].message.content

    def refused(schema) -> bool:
        with pytest.raises(openai.BadRequestError):
            chat(client, as_schema(schema))
        return server.get("/health/live").status_code == 200

    with ThreadPoolExecutor(6) as pool:
        verdicts = pool.map(refused, list(BAD.values()) * 3)
        beside = [client.chat.completions.create(**free).choices[0].message.content for _ in range(5)]
        assert all(verdicts)
    assert set(beside) == {alone}
    assert engine()["pid"] == pid
    assert is_idle(server)
