"""What `/metrics` says happened is what happened."""

from __future__ import annotations

import functools
import threading
import time
from types import SimpleNamespace

import pytest
from asking import ASK, is_idle, wait_until
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from labsupport.engine.messages import Delta
from labsupport.server import errors
from labsupport.server.metrics import PREFIX, CountResponses, Metrics
from labsupport.server.openapi import Application

LONG = {"model": "pocket", "messages": ASK, "max_tokens": 300, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def change(server):
    """How much each sample has grown since the test began."""
    before = server.metrics()
    return lambda: {
        name.removeprefix(PREFIX): value - before.get(name, 0) for name, value in server.metrics().items()
    }


def test_tokens_and_requests_are_counted_exactly(client, change):
    usages = [
        client.completions.create(
            model="pocket", prompt="x " * length, max_tokens=5, n=2, extra_body={"ignore_eos": True}
        ).usage
        for length in (3, 11, 7)
    ]

    grown = change()
    assert grown['request_success_total{finished_reason="length"}'] == 6
    assert grown["generation_tokens_total"] == sum(usage.completion_tokens for usage in usages) == 30
    # both choices of a request bring the prompt to the engine; its usage counts it once
    assert grown["prompt_tokens_total"] == 2 * sum(usage.prompt_tokens for usage in usages)
    assert grown["prefix_cache_queries_total"] == grown["prompt_tokens_total"]
    assert 0 <= grown["prefix_cache_hits_total"] < grown["prompt_tokens_total"]
    assert grown["time_to_first_token_seconds_count"] == grown["e2e_request_latency_seconds_count"] == 6
    assert grown["request_queue_time_seconds_count"] == 6
    assert grown["inter_token_latency_seconds_count"] == 30 - 6


def test_times_add_up(client, change):
    client.chat.completions.create(
        model="pocket", messages=ASK, max_tokens=20, extra_body={"ignore_eos": True}
    )

    grown = change()
    whole = grown["e2e_request_latency_seconds_sum"]
    parts = grown["time_to_first_token_seconds_sum"] + grown["inter_token_latency_seconds_sum"]
    assert 0 < parts <= whole
    assert grown["request_queue_time_seconds_sum"] <= grown["time_to_first_token_seconds_sum"]


def test_cached_tokens_are_hits(client, change):
    message = [{"role": "user", "content": "What is a GPU? And once more: what is a GPU?"}]
    usages = [
        client.chat.completions.create(model="pocket", messages=message, max_tokens=1).usage for _ in range(2)
    ]

    cached = sum(usage.prompt_tokens_details.cached_tokens for usage in usages)
    assert change()["prefix_cache_hits_total"] == cached > 0


def test_the_gauges_show_work_while_there_is_some_and_none_after(server, client):
    seen = []
    threads = [
        threading.Thread(target=client.chat.completions.create, kwargs=LONG | {"n": 10}) for _ in range(2)
    ]
    for thread in threads:
        thread.start()

    def is_full():
        seen.append(server.metrics())
        return seen[-1][f"{PREFIX}num_requests_running"] == 16  # all the slots that there are

    wait_until(is_full, what="a full batch")
    for thread in threads:
        thread.join()

    assert any(sample[f"{PREFIX}num_requests_waiting"] == 4 for sample in seen)
    assert 0 < max(sample[f"{PREFIX}kv_cache_usage_perc"] for sample in seen) <= 1
    wait_until(lambda: is_idle(server), what="an idle engine")
    after = server.metrics()
    for gauge in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert after[f"{PREFIX}{gauge}"] == 0
    assert after[f"{PREFIX}engine_ready"] == 1


def test_the_time_in_the_queue_is_that_of_those_who_waited(client, change):
    threads = [
        threading.Thread(target=client.chat.completions.create, kwargs=LONG | {"n": 16, "max_tokens": 100})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Sixteen ran and sixteen waited until those had ended, 99 tokens later
    grown = change()
    token_seconds = grown["inter_token_latency_seconds_sum"] / grown["inter_token_latency_seconds_count"]
    assert grown["request_queue_time_seconds_sum"] > 16 * 99 * token_seconds / 2


def test_refusals_are_counted_by_status(http, change):
    assert http.get("/nothing").status_code == 404
    assert http.post("/v1/completions", json={"model": "pocket"}).status_code == 400

    grown = change()
    assert grown['http_responses_total{status="404"}'] == 1
    assert grown['http_responses_total{status="400"}'] == 1


def test_names_are_vllms_and_the_format_is_prometheus(server):
    families = {family.name: family for family in text_string_to_metric_families(server.get("/metrics").text)}

    for name, kind in {
        "num_requests_running": "gauge",
        "num_requests_waiting": "gauge",
        "kv_cache_usage_perc": "gauge",
        "prefix_cache_queries": "counter",
        "prefix_cache_hits": "counter",
        "prompt_tokens": "counter",
        "generation_tokens": "counter",
        "request_success": "counter",
        "time_to_first_token_seconds": "histogram",
        "inter_token_latency_seconds": "histogram",
        "e2e_request_latency_seconds": "histogram",
        "request_queue_time_seconds": "histogram",
    }.items():
        assert families[PREFIX + name].type == kind
        assert families[PREFIX + name].documentation
        assert all(sample.labels["model_name"] == "pocket" for sample in families[PREFIX + name].samples)


def test_a_mistake_of_ours_is_counted_as_every_other_answer() -> None:
    app = Application(has_keys=False, is_relay=False)
    metrics = Metrics("m", SimpleNamespace(ready=False, last_report=None, restarts=0))
    app.outermost = functools.partial(CountResponses, metrics=metrics)
    errors.install(app)

    @app.get("/mistake")
    async def mistake() -> None:
        raise ZeroDivisionError

    http = TestClient(app, raise_server_exceptions=False)
    assert (http.get("/mistake").status_code, http.get("/nowhere").status_code) == (500, 404)

    text = metrics.render().decode()
    for status in (500, 404):
        assert f'{PREFIX}http_responses_total{{model_name="m",status="{status}"}} 1.0' in text


def test_tokens_that_come_together_are_counted_one_by_one() -> None:
    metrics = Metrics("m", SimpleNamespace(ready=False, last_report=None, restarts=0))
    watch = metrics.watch(3, arrived=time.monotonic())
    for tokens in ((1, 2, 3), (4,), (5, 6)):
        watch.saw(Delta(request_id="x", tokens=tokens))
    text = metrics.render().decode()
    assert f'{PREFIX}inter_token_latency_seconds_count{{model_name="m"}} 5.0' in text
    assert f'{PREFIX}time_to_first_token_seconds_count{{model_name="m"}} 1.0' in text
