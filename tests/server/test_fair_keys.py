"""Fairness and priorities as the holders of keys meet them, and levers that reach a real engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from asking import is_idle, wait_until

import labsupport
from labsupport.server.launch import Server

FLOODER, OTHER, BATCH, SUPPORT = (f"the-key-of-{name}" for name in ("flooder", "other", "batch", "support"))
KEY_FILE = f"""
{FLOODER} name=flooder
{OTHER} name=other
{BATCH} name=batch priority=5
{SUPPORT} name=support priority=-3 weight=2
"""
LONG_PROMPT = "x " * 60


@pytest.fixture(scope="module")
def key_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(KEY_FILE)
    return path


@pytest.fixture(scope="module")
def one_slot(key_file) -> Iterator[Server]:
    """One request runs at a time; every lever of the queue and the cells is turned."""
    with labsupport.serve(
        "pocket",
        slots=1,
        context=1024,
        kv_cells=1100,
        step_tokens=64,
        admission="preempt",
        prefix_slots=0,
        patience=60,
        threads=1,
        prompt_threads=1,
        max_waiting=40,
        max_prompt_tokens=400,
        api_key=FLOODER,
        api_key_file=key_file,
        debug=True,
    ) as running:
        yield running
        assert is_idle(running)


@pytest.fixture
def ask(one_slot) -> Callable[..., httpx.Response]:
    def ask(key: str, **options) -> httpx.Response:
        body = {"model": "pocket", "prompt": "x", "max_tokens": 2, "ignore_eos": True} | options
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(f"{one_slot.url}/v1/completions", json=body, headers=headers, timeout=300)

    return ask


class Crowd:
    """Requests that are sent in the background, and the names of those that were answered, in order."""

    def __init__(self, server: Server, ask: Callable[..., httpx.Response]) -> None:
        self.answered: list[str] = []
        self._server = server
        self._ask = ask
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(40)

    def send(self, name: str, key: str, **options) -> None:
        self._pool.submit(self._answer, name, key, options)

    def wait_until_sent(self, count: int) -> None:
        """Wait until so many requests have reached the engine."""
        wait_until(lambda: self.in_hand() + len(self.answered) >= count, what=f"{count} requests to arrive")

    def _answer(self, name: str, key: str, options: dict) -> None:
        status = self._ask(key, **options).status_code
        with self._lock:
            self.answered.append(name if status == 200 else f"{name}: {status}")

    def in_hand(self) -> int:
        state = self._server.get("/debug/engine").json()
        return state["running"] + state["waiting"]

    def until_all_answered(self) -> list[str]:
        self._pool.shutdown(wait=True)
        return self.answered


@pytest.mark.slow
def test_one_request_of_another_key_does_not_wait_behind_a_flood(one_slot, ask):
    # Given one slot, and a key that has sent sixteen requests
    crowd = Crowd(one_slot, ask)
    for index in range(16):
        crowd.send(f"flood {index}", FLOODER, max_tokens=150)
    crowd.wait_until_sent(16)
    # When another sends one
    answered_before = len(crowd.answered)
    crowd.send("single", OTHER, max_tokens=2)
    crowd.wait_until_sent(17)
    answered_meanwhile = len(crowd.answered) - answered_before
    order = crowd.until_all_answered()
    # Then it waits for the one that runs, and for at most one turn of the flood's
    assert len(order) == 17
    assert order.index("single") - answered_before - answered_meanwhile <= 3, order


def test_within_a_key_a_higher_number_gives_way_and_between_keys_too(one_slot, ask):
    for _ in range(10):  # until all of them have come before the first is done
        # Given one slot that is taken
        crowd = Crowd(one_slot, ask)
        crowd.send("runs", FLOODER, max_tokens=1000)
        crowd.wait_until_sent(1)
        # When requests come, in whatever order
        crowd.send("low", FLOODER, priority=2, max_tokens=50)
        crowd.send("batch", BATCH, max_tokens=50)
        crowd.send("usual", FLOODER, max_tokens=50)
        crowd.send("other", OTHER, priority=1, max_tokens=50)
        crowd.wait_until_sent(5)
        are_all_waiting = not crowd.answered
        order = crowd.until_all_answered()
        if are_all_waiting:
            break
    # Then the lower numbers are served first
    assert are_all_waiting
    assert order == ["runs", "usual", "other", "low", "batch"]


@pytest.mark.parametrize(
    ("key", "priority", "status"),
    [
        (OTHER, None, 200),
        (OTHER, 0, 200),
        (OTHER, 100, 200),
        (OTHER, -1, 400),
        (BATCH, 5, 200),
        (BATCH, 4, 400),
        (BATCH, 0, 400),
        (SUPPORT, -3, 200),
        (SUPPORT, -4, 400),
    ],
)
def test_a_request_may_give_way_but_not_go_before_what_its_key_may(ask, key, priority, status):
    answer = ask(key, priority=priority)

    assert answer.status_code == status
    if status == 400:
        error = answer.json()["error"]
        assert (error["param"], error["code"]) == ("priority", "priority_not_allowed")
        assert f"priority is {priority}" in error["message"]
        assert "or more" in error["message"]


@pytest.mark.parametrize("priority", ["1", 1.5, True, 101, -101, 2**63 - 1, -(2**63)])
def test_a_priority_is_a_whole_number_in_a_range(ask, priority):
    answer = ask(OTHER, priority=priority)

    assert answer.status_code == 400
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == ("priority", "invalid_value")


def test_without_keys_too_the_lowest_number_starves_nobody():
    # Given one slot, and a number that is worth a second at most
    is_over = threading.Event()
    with labsupport.serve("pocket", slots=1, context=512, patience=0.01, debug=True) as server:

        def ask(priority: int, **options) -> httpx.Response:
            body = {"model": "pocket", "prompt": "x", "ignore_eos": True, "priority": priority} | options
            return httpx.post(f"{server.url}/v1/completions", json=body, timeout=300)

        def flood() -> None:
            while not is_over.is_set():
                assert ask(-100, max_tokens=200).status_code == 200

        assert ask(-(2**63)).status_code == 400
        # When there is always one that may go before all others
        with ThreadPoolExecutor(4) as pool:
            flooding = [pool.submit(flood) for _ in range(4)]
            wait_until(lambda: server.get("/debug/engine").json()["waiting"] >= 2, what="a queue")
            # Then one that waits is answered all the same
            try:
                assert ask(100, max_tokens=2).status_code == 200
            finally:
                is_over.set()
        for one in flooding:
            one.result()


def test_the_levers_reach_the_engine(one_slot):
    state = one_slot.get("/debug/engine").json()
    models = one_slot.get("/v1/models").json()["data"]

    assert state["total_cells"] == 1100
    assert models[0]["max_model_len"] == 1024


def test_prompts_that_are_too_many_tokens_together_are_refused_with_a_time_to_come_again(one_slot, ask):
    # Given a long prompt that runs
    crowd = Crowd(one_slot, ask)
    tokens = ask(OTHER, prompt=LONG_PROMPT).json()["usage"]["prompt_tokens"]
    assert 400 / 2 > tokens > 400 / 4
    crowd.send("first", FLOODER, prompt=LONG_PROMPT, max_tokens=800, n=4)
    crowd.wait_until_sent(4)
    # When one comes that is more than is left
    refused = ask(OTHER, prompt=[LONG_PROMPT] * 3)
    # Then it is told so, and a short one is let in
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "queue_full"
    assert f"{tokens} of 400 prompt tokens in hand, {3 * tokens} more" in refused.json()["error"]["message"]
    assert int(refused.headers["Retry-After"]) >= 1
    assert ask(OTHER).status_code == 200
    assert crowd.until_all_answered() == ["first"]
    # And alone it is not refused
    assert ask(OTHER, prompt=[LONG_PROMPT] * 3).status_code == 200
