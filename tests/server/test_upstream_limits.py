"""Before an upstream a key's limits hold as before an engine: on an estimate first, then on what was used."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
from asking import ALICE, BOB, CAROL, DAVE, ERIN, wait_until
from relaying import BODY, SLOTS, Relay, accounted_relay
from scripted_upstream import Asked, always, answer, chunk, completion

REMAINING = "x-ratelimit-remaining-tokens"
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


def estimated(**changes: object) -> int:
    """What the prompt of relaying.BODY is estimated at, when it is sent with these changes."""
    sent = json.dumps(BODY | changes | {"model": "theirs"}, separators=(",", ":"))
    return -(-len(sent) // 4)


FRESH = [f"a-fresh-key-{number}" for number in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("limits")


@pytest.fixture(scope="module")
def module_relay(folder):
    lines = [f"{key} name=fresh{place} tokens-per-minute=200" for place, key in enumerate(FRESH)]
    with accounted_relay(folder, more_keys="\n".join(lines)) as running:
        yield running


@pytest.fixture
def relay(module_relay) -> Relay:
    module_relay.upstream.script = always(answer(body=completion()))
    module_relay.upstream.requests.clear()
    return module_relay


@pytest.fixture
def key() -> str:
    """A key that has used nothing yet of its 200 tokens a minute."""
    return FRESH.pop()


def using(total_tokens: int | None):
    """An answer that says that so many tokens were used, or says nothing of it."""
    usage = {"prompt_tokens": total_tokens, "completion_tokens": 0} if total_tokens is not None else None
    return always(answer(body=completion(usage=usage)))


class Held:
    """A request that the upstream has and does not answer before `let_go`."""

    def __init__(self, relay: Relay, key: str, *, usage: dict[str, int], **options: object) -> None:
        self._go_on = threading.Event()
        self.remaining = ""

        async def script(asked: Asked) -> None:
            await asked.open_stream()
            await asked.event(chunk("a"))
            await asked.wait_for(self._go_on)
            await asked.event(chunk("b", finish_reason="stop") | {"usage": usage})
            await asked.end_stream()

        before = len(relay.upstream.requests)
        relay.upstream.script = script
        self._thread = threading.Thread(target=self._ask, args=(relay, key, options))
        self._thread.start()
        wait_until(lambda: len(relay.upstream.requests) > before, what="its arrival at the upstream")

    def _ask(self, relay: Relay, key: str, options: dict[str, object]) -> None:
        with relay.lines(key=key, **options) as response:
            self.remaining = response.headers[REMAINING]
            response.read()

    def let_go(self) -> None:
        self._go_on.set()
        self._thread.join(60)


def test_what_is_charged_is_an_estimate_first_and_then_what_was_used(relay, key):
    held = Held(relay, key, usage={"prompt_tokens": 30, "completion_tokens": 20}, max_tokens=90)

    relay.upstream.script = using(1)
    refused = relay.chat(key=key, max_tokens=150)
    assert refused.status_code == 429
    left = 200 - estimated(max_tokens=90, **STREAMED) - 90
    could_use = estimated(max_tokens=150) + 150
    assert f"of which {left} are left and this request can use {could_use}" in refused.text
    held.let_go()

    # Fifty were used, so this fits now; and the headers of both said what was left
    assert held.remaining == str(left)
    response = relay.chat(key=key, max_tokens=120)
    assert response.status_code == 200
    assert response.headers[REMAINING] == str(200 - 50 - 1)


def test_the_length_of_a_request_is_its_estimate_whatever_it_is_made_of(relay, key):
    relay.upstream.script = using(None)
    made_of = {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": [[[]]] * 20}}}]}

    response = relay.chat(key=key, max_tokens=9, **made_of)

    assert response.headers[REMAINING] == str(200 - estimated(max_tokens=9, **made_of) - 9)


def test_what_was_used_over_the_estimate_the_next_ones_wait_for(relay, key):
    relay.upstream.script = using(350)  # the prompt was far longer than its bytes told

    assert relay.chat(key=key, max_tokens=1).headers[REMAINING] == "0"

    refused = relay.chat(key=key, max_tokens=1)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert len(relay.upstream.requests) == 1


def test_an_answer_without_max_tokens_holds_all_that_is_left_until_it_ends(relay, key):
    held = Held(relay, key, usage={"prompt_tokens": 10, "completion_tokens": 10})

    relay.upstream.script = using(1)
    assert relay.chat(key=key, max_tokens=1).status_code == 429
    held.let_go()

    assert held.remaining == "0"
    assert relay.chat(key=key, max_tokens=1).headers[REMAINING] == str(200 - 20 - 1)


def test_where_the_upstream_never_says_what_was_used_the_estimate_stays(relay, key):
    relay.upstream.script = using(None)

    response = relay.chat(key=key, max_tokens=90)

    assert response.headers[REMAINING] == str(200 - estimated(max_tokens=90) - 90)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_where_the_upstream_failed_and_may_have_worked_the_estimate_stays(relay, key, status):
    relay.upstream.script = always(answer(status))
    assert relay.chat(key=key, max_tokens=90).status_code in (502, 504)
    relay.upstream.script = using(1)

    left = 200 - estimated(max_tokens=90) - 90
    assert relay.chat(key=key, max_tokens=1).headers[REMAINING] == str(left - 1)


def test_where_the_upstream_failed_and_says_what_it_used_that_is_charged(relay, key):
    usage = {"prompt_tokens": 20, "completion_tokens": 5}
    relay.upstream.script = always(answer(500, {"error": {"message": "m"}, "usage": usage}))
    assert relay.chat(key=key, max_tokens=90).status_code == 502
    relay.upstream.script = using(1)

    assert relay.chat(key=key, max_tokens=1).headers[REMAINING] == str(200 - 25 - 1)


@pytest.mark.parametrize("status", [429, 503])
def test_what_the_upstream_refused_is_given_back(relay, key, status):
    relay.upstream.script = always(answer(status))
    for _ in range(3):
        assert relay.chat(key=key).status_code in (429, 502, 503)
    relay.upstream.stop_listening()
    assert relay.chat(key=key).json()["error"]["code"] == "upstream_unreachable"
    relay.upstream.listen()
    relay.upstream.script = using(1)

    assert relay.chat(key=key, max_tokens=150).headers[REMAINING] == "199"


def test_what_is_over_the_limit_by_itself_is_told_so_and_the_upstream_is_not_asked(relay):
    refused = relay.chat(key=DAVE, n=2, max_tokens=100)

    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "tokens_per_minute_too_low"
    could_use = estimated(n=2, max_tokens=100) + 2 * 100
    assert f"can use {could_use} tokens" in refused.json()["error"]["message"]
    assert relay.upstream.requests == []


def test_two_a_minute_are_two_a_minute(relay):
    statuses = [relay.chat(key=CAROL).status_code for _ in range(4)]

    assert statuses == [200, 200, 429, 429]
    assert len(relay.upstream.requests) == 2
    assert relay.chat(key=ALICE).status_code == 200


def test_one_at_a_time_is_one_at_a_time_while_it_waits_for_the_upstream(relay):
    go_on = threading.Event()

    async def held(asked: Asked) -> None:
        await asked.wait_for(go_on)
        await asked.send(answer(body=completion()))

    relay.upstream.script = held
    thread = threading.Thread(target=relay.chat, kwargs={"key": ERIN})
    thread.start()
    wait_until(lambda: relay.upstream.requests != [], what="the first to be with the upstream")

    refused = relay.chat(key=ERIN)
    go_on.set()
    thread.join(60)

    assert refused.status_code == 429
    assert "1 concurrent requests" in refused.json()["error"]["message"]
    assert relay.chat(key=ERIN).status_code == 200


def test_a_key_that_floods_the_queue_makes_another_wait_for_one_turn_only(relay):
    one_more, order = threading.Semaphore(0), []

    async def held(asked: Asked) -> None:
        order.append(asked.json["user"])
        while not one_more.acquire(blocking=False):
            await asyncio.sleep(0.02)
        await asked.send(answer(body=completion()))

    relay.upstream.script = held
    threads = []

    def ask(key: str, name: str) -> None:
        threads.append(threading.Thread(target=relay.chat, kwargs={"key": key, "user": name}))
        threads[-1].start()

    # Alice has all the turns and most places of the queue when Bob comes, with one request
    for _ in range(2 * SLOTS - 1):
        ask(ALICE, "alice")
    wait_until(lambda: in_hand(relay) == (SLOTS, SLOTS - 1), what="alice everywhere")
    ask(BOB, "bob")
    wait_until(lambda: in_hand(relay) == (SLOTS, SLOTS), what="bob in the queue")

    # The turns that come free now go to one of each
    for turn in range(2):
        one_more.release()
        wait_until(lambda turn=turn: len(order) == SLOTS + turn + 1, what="the next turn")
    for _ in range(2 * SLOTS):
        one_more.release()
    for thread in threads:
        thread.join(60)

    assert sorted(order[SLOTS : SLOTS + 2]) == ["alice", "bob"]
    assert len(order) == 2 * SLOTS


def in_hand(relay: Relay) -> tuple[float, float]:
    """Running and waiting."""
    samples = relay.server.metrics()
    return samples["labsupport:num_requests_running"], samples["labsupport:num_requests_waiting"]
