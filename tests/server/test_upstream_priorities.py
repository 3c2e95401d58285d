"""Before an upstream: a key's priority holds, and is told to servers that know what a priority is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from vllm_like import KEY, MODEL, VllmLike

import labsupport

ASK = [{"role": "user", "content": "Hello there"}]
PLAIN, LATE, EARLY = (f"the-key-of-{name}" for name in ("plain", "late", "early"))
KEY_FILE = f"{PLAIN} name=plain\n{LATE} name=late priority=5\n{EARLY} name=early priority=-3\n"
CASES = ((PLAIN, {}), (LATE, {}), (EARLY, {}), (EARLY, {"priority": 0}), (LATE, {"stream": True}))

Chat = Callable[..., httpx.Response]


@contextmanager
def relay_before_vllm(folder: Path, vllm: VllmLike, **options: str) -> Iterator[tuple[Chat, str]]:
    """A way to chat with a key, and the server's log so far."""
    (folder / "keys").write_text(KEY_FILE)
    (folder / "upstream-key").write_text(KEY)
    files = {"api_key_file": folder / "keys", "upstream_key_file": folder / "upstream-key"}
    given = {"engine": "upstream", "upstream": vllm.url, "upstream_model": MODEL, "api_key": PLAIN}
    with labsupport.serve("ours", **given, **files, **options) as server:

        def chat(key: str, **changes: object) -> httpx.Response:
            body = {"model": "ours", "messages": ASK, "max_tokens": 2} | changes
            headers = {"Authorization": f"Bearer {key}"}
            return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=60)

        yield chat, server.log_tail(100)


def test_an_upstream_that_may_not_know_priorities_is_told_none(tmp_path):
    with VllmLike() as vllm, relay_before_vllm(tmp_path, vllm) as (chat, log):
        # This one refuses any but 0
        for key, changes in CASES:
            assert chat(key, **changes).status_code == 200
        assert [asked.get("priority") for asked in vllm.seen] == [None] * len(CASES)

        # What a client says in so many words is not dropped behind its back
        refused = chat(PLAIN, priority=7)
        assert refused.status_code == 400
        assert (refused.json()["error"]["param"], refused.json()["error"]["code"]) == (
            "priority",
            "unsupported_parameter",
        )
        assert chat(PLAIN, priority=-1).json()["error"]["code"] == "priority_not_allowed"
        assert len(vllm.seen) == len(CASES)
    assert "the priority of late, early" in log


def test_an_upstream_that_knows_priorities_is_told_the_keys(tmp_path):
    with (
        VllmLike("--priority-scheduling") as vllm,
        relay_before_vllm(tmp_path, vllm, upstream_knows="priority") as (chat, log),
    ):
        for key, changes in (*CASES, (PLAIN, {"priority": 7})):
            assert chat(key, **changes).status_code == 200
        assert [asked.get("priority") for asked in vllm.seen] == [None, 5, -3, None, 5, 7]

        assert chat(PLAIN, priority=-1).json()["error"]["code"] == "priority_not_allowed"
        assert len(vllm.seen) == len(CASES) + 1
    assert "the priority of" not in log


@pytest.mark.parametrize("options", [(), ("--priority-scheduling",)], ids=["without", "with"])
def test_the_stand_in_minds_priorities_as_vllm_does(options):
    with VllmLike(*options) as vllm:
        body = {"model": MODEL, "messages": ASK, "max_tokens": 2, "priority": 1}
        answered = httpx.post(
            f"{vllm.url}/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=60,
        )

    assert answered.status_code == (200 if options else 400)
