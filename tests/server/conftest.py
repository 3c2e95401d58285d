"""Real servers with real engine processes, each started once.

The tests speak to them as users do, with the official `openai` client or plain HTTP, and read the engine's
invariants over `/debug/engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from asking import ALICE, KEY, KEY_FILE, KEYS

import labsupport
from labsupport import models
from labsupport.server.launch import Server


@pytest.fixture(scope="session")
def gguf_file() -> Path:
    return models.path("pocket", "q4_k_m")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Sixteen slots, a short context, no key: what most tests use."""
    with labsupport.serve("pocket", "q4_k_m", slots=16, context=512, debug=True) as running:
        yield running


@pytest.fixture(scope="session")
def small_server() -> Iterator[Server]:
    """Two slots, two places to wait, and a key."""
    with labsupport.serve("pocket", "q4_k_m", slots=2, max_waiting=2, debug=True, api_key=KEY) as running:
        yield running


@pytest.fixture(scope="session")
def accounts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("accounts")


@pytest.fixture(scope="session")
def ledger(accounts_folder: Path) -> Path:
    """The file that `accounted` writes."""
    return accounts_folder / "ledger"


@pytest.fixture(scope="session")
def accounted(accounts_folder: Path, ledger: Path) -> Iterator[Server]:
    """A server with a ledger, and keys with limits; its handle shows alice's key."""
    key_file = accounts_folder / "keys"
    key_file.write_text(KEY_FILE)
    with labsupport.serve(
        "pocket",
        slots=8,
        context=512,
        debug=True,
        api_key=ALICE,
        api_key_file=key_file,
        ledger=ledger,
    ) as running:
        yield running
        log = running.log_tail(1_000_000)
        assert not any(key in log for key in KEYS)


@pytest.fixture(scope="session")
def client(server: Server) -> openai.OpenAI:
    return server.openai()


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as connection:
        yield connection


@pytest.fixture
def engine(server: Server) -> Callable[[], dict[str, Any]]:
    return lambda: server.get("/debug/engine").json()
