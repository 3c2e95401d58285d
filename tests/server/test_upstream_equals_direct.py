"""Two real servers in a row give what the second one gives alone."""

from __future__ import annotations

import asyncio
import json

import httpx
import openai
import pytest
from asking import ASK, is_idle, wait_until
from relaying import chunks_of, relay_before_script
from scripted_upstream import Asked

import labsupport
from labsupport.server.metrics import PREFIX

CHAT = {
    "plain": {},
    "another-name-for-the-limit": {"max_tokens": None, "max_completion_tokens": 6},
    "choices": {"n": 2, "seed": 0, "temperature": 1},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "stop": {"stop": ["a", "e"]},
    "vllm's": {"ignore_eos": True, "top_k": 3, "min_p": 0.01},
    "conversation": {"messages": [{"role": "system", "content": "Be brief."}, *ASK]},
}
COMPLETION = {
    "plain": {},
    "prompts": {"prompt": ["What is", "a KV cache?"], "n": 2},
    "token-ids": {"prompt": [[5, 6, 7], [8]]},
    "logprobs": {"logprobs": 2},
    "unusual-text": {"prompt": "é☃\U0001f600"},
}
CASES = [("chat/completions", {"messages": ASK} | options) for options in CHAT.values()]
CASES += [("completions", {"prompt": "What is a KV cache?"} | options) for options in COMPLETION.values()]
IDS = [f"chat-{name}" for name in CHAT] + [f"completion-{name}" for name in COMPLETION]


@pytest.fixture(scope="module")
def relay(server):
    """A server of ours whose upstream is another, with a model."""
    with labsupport.serve("ours", engine="upstream", upstream=server.url, upstream_model="pocket") as running:
        yield running


@pytest.fixture(scope="module")
def relayed(relay):
    return relay.openai()


@pytest.fixture(scope="module")
def tapped(server, tmp_path_factory):
    """The same with a tap between the two, so that one answer can be compared before and behind the relay.

    Two answers to one request need not be equal: rounding depends on what else is in the batch.
    """
    with relay_before_script(tmp_path_factory.mktemp("tap"), upstream_model="pocket") as running:
        running.upstream.script = running.tap = Tap(server.url)
        yield running


class Tap:
    """Passes a request on to a real server, and its answer back. `answer`: the body that it gave last."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answer = b""

    async def __call__(self, asked: Asked) -> None:
        self.answer = b""
        headers = {"Content-Type": "application/json"}
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=60) as client,
            client.stream("POST", asked.path, content=asked.body, headers=headers) as response,
        ):
            kind = response.headers["content-type"]
            await asked.send(
                f"HTTP/1.1 {response.status_code} X\r\nContent-Type: {kind}\r\n"
                "Transfer-Encoding: chunked\r\n\r\n".encode()
            )
            async for piece in response.aiter_raw():
                self.answer += piece
                await asked.piece(piece)
            await asked.end_stream(done=False)


def ask(tapped, route, options):
    body = {"model": "ours", "max_tokens": 16, "temperature": 0} | options
    response = tapped.http.post(f"/v1/{route}", json=body)
    assert response.status_code == 200, response.text
    return response.text


@pytest.mark.parametrize(("route", "options"), CASES, ids=IDS)
def test_a_whole_answer_is_the_upstreams(tapped, route, options):
    through = json.loads(ask(tapped, route, options))

    direct = json.loads(tapped.tap.answer)
    assert direct["choices"]
    assert direct["model"] == "pocket"
    assert through["id"] != direct["id"]
    assert through == direct | {"model": "ours", "id": through["id"]}


@pytest.mark.parametrize("include_usage", [True, False], ids=["usage", "no-usage"])
@pytest.mark.parametrize(("route", "options"), CASES, ids=IDS)
def test_a_stream_is_the_upstreams(tapped, route, options, include_usage):
    stream = {"stream": True, "stream_options": {"include_usage": include_usage}}

    through = chunks_of(ask(tapped, route, options | stream))

    *direct, usage = chunks_of(tapped.tap.answer.decode())
    assert direct
    assert usage["usage"]["completion_tokens"] > 0
    ours = {"model": "ours", "id": through[0]["id"]}
    if include_usage:
        assert through == [event | ours for event in [*direct, usage]]
    else:
        assert [event | {"usage": None} for event in through] == [event | ours for event in direct]
        assert not any("usage" in event for event in through)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_the_official_client_gets_the_same_from_both(client, relayed, stream):
    chat(client, "pocket")  # from here on both find the prompt in the prefix cache

    texts = []
    for asked, model in ((client, "pocket"), (relayed, "ours")):
        answer = chat(asked, model, stream=stream)
        if stream:
            chunks = list(answer)
            assert {chunk.model for chunk in chunks} == {model}
            said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            texts.append((said, chunks[-1].choices[0].finish_reason))
        else:
            (choice,) = answer.choices
            usage = answer.usage
            texts.append((choice.message.content, choice.finish_reason, usage))
    direct, through = texts
    assert direct == through
    assert direct[0]


def chat(client, model, **options):
    defaults = {"messages": ASK, "max_tokens": 16, "temperature": 0}
    return client.chat.completions.create(model=model, **(defaults | options))


@pytest.mark.parametrize(
    "options",
    [
        {"messages": [{"role": "user", "content": "x " * 5000}]},
        {"max_tokens": 100_000},
        {"temperature": -1},
        {"extra_body": {"temprature": 1}},
        {"stop": ["a"] * 5},
    ],
    ids=["too-long", "too-many", "out-of-range", "unknown", "too-many-stops"],
)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_refusal_is_the_same_whoever_made_it(client, relayed, options, stream):
    refusals = []
    for asked, model in ((client, "pocket"), (relayed, "ours")):
        with pytest.raises(openai.BadRequestError) as raised:
            chat(asked, model, stream=stream, **options)
        refusals.append(raised.value)

    direct, through = refusals
    assert (through.param, through.code) == (direct.param, direct.code)
    assert direct.body["message"] in through.body["message"]


def test_usage_is_counted_as_the_upstream_counts_it(server, relay, relayed):
    names = ("prompt_tokens_total", "generation_tokens_total", "prefix_cache_hits_total")
    counters = [f"{PREFIX}{name}" for name in names]
    before = [running.metrics() for running in (server, relay)]

    for stream in (True, False):
        for _ in range(3):
            answer = chat(relayed, "ours", stream=stream)
            if stream:
                assert all(chunk.usage is None for chunk in answer)

    direct, through = (
        [running.metrics()[name] - earlier[name] for name in counters]
        for running, earlier in zip((server, relay), before, strict=True)
    )
    assert direct == through
    assert min(direct) > 0


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_leaves_frees_the_slots_of_the_upstreams_engine(server, relay, engine, stream):
    aborted = f'{PREFIX}request_success_total{{finished_reason="abort"}}'
    before = [running.metrics()[aborted] for running in (server, relay)]
    body = {"model": "ours", "messages": ASK, "n": 3, "max_tokens": 400, "ignore_eos": True, "stream": stream}

    async def leave() -> None:
        async with httpx.AsyncClient(base_url=relay.url, timeout=60) as client:
            asking = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            await asyncio.to_thread(wait_until, lambda: engine()["running"] == 3, what="the request's start")
            asking.cancel()

    asyncio.run(leave())

    wait_until(lambda: is_idle(server), seconds=10, what="an idle engine")
    for running, earlier in zip((server, relay), before, strict=True):
        wait_until(lambda one=running, n=earlier: one.metrics()[aborted] == n + 3, what="the count of aborts")
