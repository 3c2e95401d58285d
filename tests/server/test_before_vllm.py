"""Before vLLM: its chunks, errors and usage pass as a client of OpenAI's API expects them, and are billed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from asking import wait_until
from ledger_rows import rows, used
from relaying import chunks_of
from vllm_like import KEY, MODEL, VERSION, VllmLike

import labsupport
from labsupport.server.launch import Server

PROMPT = "one two three four"
NOT_KNOWN = (None, None, None)


@dataclass
class BeforeVllm:
    """A server of ours before the stand-in, and the ledger that it writes."""

    vllm: VllmLike
    server: Server
    ledger: Path

    def post(self, route: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.server.url}/v1/{route}", json={"model": "ours"} | body, timeout=60)

    def chat(self, prompt: str = PROMPT, **changes: Any) -> httpx.Response:
        return self.post("chat/completions", messages=[{"role": "user", "content": prompt}], **changes)

    def complete(self, prompt: str | list[str] = PROMPT, **changes: Any) -> httpx.Response:
        return self.post("completions", prompt=prompt, **changes)

    def leave_after(self, events: int, prompt: str, **changes: Any) -> None:
        """Read so many events of a stream, and hang up."""
        ask = {"model": "ours", "messages": [{"role": "user", "content": prompt}], "stream": True}
        url = f"{self.server.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=ask | changes, timeout=60) as response:
            lines = (line for line in response.iter_lines() if line)
            for _ in range(events):
                next(lines)

    def last_row(self) -> dict[str, Any]:
        """The newest row, once it has ended. It is there before the answer's first byte."""
        wait_until(lambda: self._newest()["finish_reason"] is not None, what="its end")
        return self._newest()

    def _newest(self) -> dict[str, Any]:
        return max(rows(self.ledger).values(), key=lambda row: row["arrived_at"])


@contextmanager
def relay_before(vllm: VllmLike, folder: Path, **options: str) -> Iterator[BeforeVllm]:
    (folder / "upstream-key").write_text(KEY)
    given = {"engine": "upstream", "upstream": vllm.url, "upstream_model": MODEL} | options
    files = {"upstream_key_file": folder / "upstream-key", "ledger": folder / "ledger"}
    with labsupport.serve("ours", **given, **files) as server:
        yield BeforeVllm(vllm, server, folder / "ledger")


@pytest.fixture(scope="module")
def vllm() -> Iterator[VllmLike]:
    with VllmLike() as running:
        yield running


@pytest.fixture(scope="module")
def relay(vllm, tmp_path_factory) -> Iterator[BeforeVllm]:
    with relay_before(vllm, tmp_path_factory.mktemp("plain")) as running:
        yield running


@pytest.fixture(scope="module")
def told_all_along(vllm, tmp_path_factory) -> Iterator[BeforeVllm]:
    """Before an upstream that is known to tell its usage in every chunk."""
    folder = tmp_path_factory.mktemp("told")
    with relay_before(vllm, folder, upstream_knows="continuous_usage_stats") as running:
        yield running


def test_the_stand_in_has_the_routes_that_vllm_has(vllm):
    assert httpx.get(f"{vllm.root}/version", timeout=60).json() == {"version": VERSION}
    assert httpx.get(f"{vllm.root}/health", timeout=60).content == b""
    assert httpx.get(f"{vllm.url}/models", timeout=60).json() == {"error": "Unauthorized"}


@pytest.mark.parametrize("include_usage", [True, False], ids=["asked-for", "not-asked-for"])
@pytest.mark.parametrize("which", ["relay", "told_all_along"])
def test_a_streams_usage_comes_last_without_choices_or_not_at_all(request, which, include_usage):
    before = request.getfixturevalue(which)

    response = before.chat(max_tokens=5, stream=True, stream_options={"include_usage": include_usage})

    events = chunks_of(response.text)
    told = [event for event in events if event.get("usage")]
    assert [event["choices"] for event in told] == [[]] * include_usage
    assert [event["usage"]["completion_tokens"] for event in told] == [5] * include_usage
    # The role, five tokens, and perhaps the usage; none has a trace of what only we asked for
    assert len(events) == 1 + 5 + include_usage
    assert "".join(event["choices"][0]["delta"]["content"] for event in events[:6]) == "0 1 2 3 4 "
    assert {event["model"] for event in events} == {"ours"}
    row = before.last_row()
    assert (used(row), row["finish_reason"]) == ((4, 3, 5), "length")


@pytest.mark.parametrize("which", ["relay", "told_all_along"])
def test_several_choices_of_several_prompts_are_billed_once(request, which):
    before = request.getfixturevalue(which)

    before.complete(["a b c", "d e"], n=2, max_tokens=3, stream=True)
    assert used(before.last_row()) == (5, 4, 12)
    before.complete(["a b c", "d e"], n=2, max_tokens=3)
    assert used(before.last_row()) == (5, 4, 12)


def test_token_ids_come_through(relay):
    whole = relay.chat(max_tokens=2, return_token_ids=True).json()
    first, *_ = chunks_of(relay.chat(max_tokens=2, stream=True, return_token_ids=True).text)

    assert whole["prompt_token_ids"] == first["prompt_token_ids"] == [0, 1, 2, 3]
    assert whole["choices"][0]["token_ids"] == [0, 1]
    assert whole["choices"][0]["stop_reason"] is None


def test_the_official_client_reads_both(relay):
    client = relay.server.openai()
    messages = [{"role": "user", "content": PROMPT}]

    whole = client.chat.completions.create(model="ours", messages=messages, max_tokens=3)
    stream = client.chat.completions.create(model="ours", messages=messages, max_tokens=3, stream=True)

    assert whole.choices[0].message.content == "0 1 2"
    assert "".join(part.choices[0].delta.content or "" for part in stream) == "0 1 2 "


@pytest.mark.parametrize("prompt", ["nested", "flat"])
def test_an_error_is_read_in_the_new_shape_and_in_the_old(relay, prompt):
    with pytest.raises(openai.BadRequestError) as raised:
        relay.server.openai().completions.create(model="ours", prompt=prompt, max_tokens=5000)

    assert "'max_tokens' is too large: 5000." in raised.value.message
    assert raised.value.param == "max_tokens"
    assert used(relay.last_row()) == (0, 0, 0)


def test_a_model_that_is_not_there_is_a_mistake_of_who_runs_this_server(vllm, tmp_path):
    with relay_before(vllm, tmp_path, upstream_model="another") as before:
        response = before.chat(max_tokens=2)

        assert response.status_code == 502
        assert response.json()["error"]["code"] == "upstream_not_found"
        assert used(before.last_row()) == (0, 0, 0)


@pytest.mark.parametrize(
    ("which", "tokens"),
    [("relay", NOT_KNOWN), ("told_all_along", (5, 0, 3))],
)
def test_an_error_in_mid_stream_ends_it_and_what_was_told_till_then_is_written_down(request, which, tokens):
    before = request.getfixturevalue(which)

    *_, last = before.chat(f"{PROMPT} break", max_tokens=9, stream=True).text.split("data: ")

    assert '"code":"upstream_failed"' in last
    row = before.last_row()
    assert (row["finish_reason"], used(row)) == ("error", tokens)


def test_an_error_instead_of_an_answer_is_not_taken_for_one_that_cost_nothing(relay):
    assert relay.chat(f"{PROMPT} break", max_tokens=9).json()["error"]["code"] == "upstream_failed"
    assert used(relay.last_row()) == NOT_KNOWN


@pytest.mark.parametrize(
    ("which", "tokens"),
    [("relay", NOT_KNOWN), ("told_all_along", (5, 0, 2 * 3))],
)
def test_who_leaves_a_stream_half_way_is_billed_where_the_upstream_tells_its_usage_all_along(
    request, which, tokens
):
    before = request.getfixturevalue(which)
    left = before.vllm.left

    # Two roles and three tokens of each choice; then it stalls
    before.leave_after(2 + 2 * 3, f"{PROMPT} stall", max_tokens=9, n=2)

    row = before.last_row()
    assert (row["finish_reason"], used(row)) == ("abort", tokens)
    wait_until(lambda: before.vllm.left == left + 1, what="vLLM to learn of it")


def test_who_leaves_at_the_finish_reason_is_billed_whatever_the_upstream_knows(relay):
    relay.leave_after(1 + 4, PROMPT, max_tokens=4)

    assert used(relay.last_row()) == (4, 3, 4)


def test_kill_9_of_vllm_is_an_error_and_the_row_says_that_nobody_knows(tmp_path):
    with VllmLike() as vllm, relay_before(vllm, tmp_path) as before:
        url = f"{before.server.url}/v1/chat/completions"
        ask = {"model": "ours", "messages": [{"role": "user", "content": "stall"}], "stream": True}
        with httpx.stream("POST", url, json=ask, timeout=60) as response:
            lines = (line for line in response.iter_lines() if line)
            next(lines)
            vllm.process.kill()
            *_, last = lines

        assert '"code":"upstream_disconnected"' in last
        assert used(before.last_row()) == NOT_KNOWN
        wait_until(lambda: before.server.get("/health/ready").status_code == 503, what="the news of it")
