"""What the OpenAPI document allows, and what it forbids, is sent: no 5xx, and the document tells the truth.

Schemathesis makes the requests out of the document that the server itself hands out. They are the same in
every run.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
import schemathesis
from asking import KEY, is_idle
from hypothesis import HealthCheck, Phase, given, seed, settings
from relaying import relay_before_script
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from scripted_upstream import always, answer

import labsupport
from labsupport.server.launch import Server

WITHOUT_INPUT = {
    "GET /debug/engine",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
    "GET /v1/models",
}
ASKED = {
    "GET /v1/models/{name}",
    "GET /v1/usage",
    "POST /tokenize",
    "POST /v1/chat/completions",
    "POST /v1/completions",
}
RULES = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
BOUNDS = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # without shrinking, which would ask the server a thousand times more
    suppress_health_check=list(HealthCheck),
)
FEW = settings(BOUNDS, max_examples=5)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A short context, so that an answer without a limit is short too."""
    ledger = tmp_path_factory.mktemp("fuzzed") / "ledger"
    with labsupport.serve("pocket", slots=16, context=64, debug=True, ledger=ledger) as running:
        yield running


@pytest.fixture(scope="module")
def operations(fuzzed):
    schema = schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json")
    return {operation.label: operation for operation in map(_ok, schema.get_all_operations())}


def _ok(result):
    return result.ok()


def statuses_of(operation, mode: GenerationMode, *, bounds=BOUNDS, headers=None, model="pocket") -> list[int]:
    """What the requests of one operation are answered with, once every answer was checked."""
    statuses = []
    with requests.Session() as session:

        @bounds
        @seed(0)
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case):
            if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
                case.body["model"] = model  # a name that was made up says no more than that it is unknown
            response = case.call_and_validate(session=session, headers=headers, checks=RULES, timeout=120)
            statuses.append(response.status_code)

        ask()
    return statuses


def test_every_operation_of_the_document_is_fuzzed(operations):
    assert set(operations) == WITHOUT_INPUT | ASKED


@pytest.mark.parametrize("label", sorted(WITHOUT_INPUT))
def test_what_takes_no_input_answers_as_documented(operations, label):
    assert statuses_of(operations[label], GenerationMode.POSITIVE) == [200]


@pytest.mark.parametrize("label", sorted(ASKED))
def test_a_request_that_the_document_allows_is_answered_as_it_says(fuzzed, operations, label):
    statuses = statuses_of(operations[label], GenerationMode.POSITIVE)

    assert len(statuses) > 20
    assert "{name}" in label or 200 in statuses
    assert is_idle(fuzzed)


@pytest.mark.parametrize("label", sorted(ASKED - {"GET /v1/models/{name}"}))  # any text is a name
def test_a_request_that_the_document_forbids_is_refused_as_it_says(fuzzed, operations, label):
    statuses = statuses_of(operations[label], GenerationMode.NEGATIVE)

    assert len(statuses) > 20
    assert 400 in statuses
    assert is_idle(fuzzed)


@pytest.mark.parametrize("label", sorted(WITHOUT_INPUT | ASKED))
def test_a_request_by_another_hosts_name_is_turned_away_as_documented(operations, label):
    host = {"Host": "evil.example"}
    statuses = statuses_of(operations[label], GenerationMode.POSITIVE, bounds=FEW, headers=host)

    assert set(statuses) == ({200} if "health" in label else {421})


def test_what_an_upstream_cannot_process_is_passed_on_as_documented(tmp_path):
    with relay_before_script(tmp_path) as relay:
        relay.upstream.script = always(answer(422, {"error": {"message": "no such thing", "code": None}}))
        with_key = {"Authorization": f"Bearer {KEY}"}
        schema = schemathesis.openapi.from_url(f"{relay.server.url}/openapi.json", headers=with_key)

        for operation in map(_ok, schema.get_all_operations()):
            if operation.path.endswith("completions"):
                statuses = statuses_of(
                    operation, GenerationMode.POSITIVE, bounds=FEW, headers=with_key, model="ours"
                )
                assert 422 in statuses
