"""A key's limits as its holder meets them: 429 with a time that suffices, and headers to plan by."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from asking import ALICE, ASK, BOB, CAROL, DAVE, ERIN, is_idle, wait_until
from ledger_rows import rows


@pytest.fixture
def ask(accounted):
    """One completion with a key, or one chat if `messages` are given; the raw answer."""

    def ask(key, **options) -> httpx.Response:
        is_chat = "messages" in options
        body = {"model": "pocket", "max_tokens": 2} | ({} if is_chat else {"prompt": "x"}) | options
        url = f"{accounted.url}/v1/{'chat/' if is_chat else ''}completions"
        return httpx.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=120)

    return ask


def rate_limits(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit-")}


@pytest.mark.slow
def test_two_a_minute_are_two_a_minute_and_who_waits_as_told_is_let_in(ask, ledger):
    with ThreadPoolExecutor(8) as pool:  # all at once: nobody slips in between a check and its charge
        answers = list(pool.map(lambda _: ask(CAROL), range(8)))

    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 6
    for answer in answers:
        assert answer.headers["x-ratelimit-limit-requests"] == "2"
        if answer.status_code == 429:
            error = answer.json()["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            assert "2 requests a minute" in error["message"]
            assert answer.headers["x-ratelimit-remaining-requests"] == "0"
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert ask(BOB).status_code == 200  # another key is not held up
    assert len([row for row in rows(ledger).values() if row["key"] == "carol"]) == 2

    refused = ask(CAROL)
    assert refused.status_code == 429
    time.sleep(int(refused.headers["Retry-After"]))
    assert ask(CAROL).status_code == 200


def test_tokens_are_held_at_the_most_and_given_back_but_for_those_used(accounted, ask):
    first = ask(DAVE, messages=ASK, max_tokens=150, stop=["cache", "e"], temperature=0)
    used = first.json()["usage"]["total_tokens"]
    assert used < 90, "the stop strings end it early"
    assert rate_limits(first) == {
        "x-ratelimit-limit-tokens": "200",
        "x-ratelimit-remaining-tokens": str(200 - used),
        "x-ratelimit-reset-tokens": first.headers["x-ratelimit-reset-tokens"],
    }
    assert 0 < float(first.headers["x-ratelimit-reset-tokens"].rstrip("ms")) <= 60

    # While an answer runs, the most that it can use is held
    client = accounted.openai(api_key=DAVE)
    with client.completions.with_streaming_response.create(
        model="pocket", prompt="x", max_tokens=100, n=1, stream=True, extra_body={"ignore_eos": True}
    ) as stream:
        assert int(stream.headers["x-ratelimit-remaining-tokens"]) < 200 - used - 100
        refused = ask(DAVE, max_tokens=150)
    assert refused.status_code == 429
    assert "200 tokens a minute" in refused.json()["error"]["message"]
    assert 1 <= int(refused.headers["Retry-After"]) <= 60

    # What was left was not used: it is there again
    wait_until(lambda: is_idle(accounted), what="an idle engine")
    assert ask(DAVE, max_tokens=1).status_code == 200


def test_what_one_request_can_use_counts_each_prompt_once_and_each_choice(ask):
    refused = ask(DAVE, prompt=["x", "x y z"], n=4, max_tokens=50)

    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "tokens_per_minute_too_low"
    prompts = sum(ask(ALICE, prompt=text).json()["usage"]["prompt_tokens"] for text in ("x", "x y z"))
    assert f"can use {prompts + 2 * 4 * 50} tokens" in refused.json()["error"]["message"]


def test_one_at_a_time_is_one_at_a_time_however_the_one_ends(accounted, ask):
    client = accounted.openai(api_key=ERIN)
    for _ in range(2):  # the place comes back when its holder leaves
        stream = client.chat.completions.create(
            model="pocket", messages=ASK, max_tokens=400, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        refused = ask(ERIN)
        assert refused.status_code == 429
        assert "1 concurrent requests" in refused.json()["error"]["message"]
        assert int(refused.headers["Retry-After"]) >= 1
        assert rate_limits(refused) == {}
        stream.close()
        wait_until(lambda: ask(ERIN).status_code == 200, what="the place to come back")


def test_the_official_client_gets_through_by_its_own_retries(accounted):
    patient = accounted.openai(api_key=ERIN, max_retries=20)
    answers = []

    def ask():
        answers.append(patient.completions.create(model="pocket", prompt="x", max_tokens=8))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert len(answers) == 3
    with pytest.raises(openai.BadRequestError, match="a minute"):
        accounted.openai(api_key=DAVE).completions.create(model="pocket", prompt="x", max_tokens=300)


def test_a_key_without_limits_has_no_headers_about_them(ask):
    assert rate_limits(ask(ALICE)) == {}
