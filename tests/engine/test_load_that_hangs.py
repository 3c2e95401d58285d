"""An engine that hangs while it loads is killed and started again, and says so meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable

import psutil
import pytest

from labsupport.engine import process as process_module
from labsupport.engine.client import EngineClient
from labsupport.engine.config import EngineConfig
from labsupport.engine.process import EngineLoadsTooLong, load_within_seconds
from labsupport.server.engine_link import EngineLink

PATIENCE_SECONDS = 240.0
"""Generous: what is tested is that it happens, on a machine that may be busy."""


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.002)


def engines() -> list[psutil.Process]:
    """The engine processes that this one has started."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "labsupport.engine.worker" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


@contextlib.asynccontextmanager
async def the_next_to_load_hangs(monkeypatch) -> AsyncIterator[Callable[[], psutil.Process]]:
    """Stop the next engine process as soon as it is there; it is given two seconds, those after it plenty."""
    known = {each.pid for each in engines()}
    stopped: list[psutil.Process] = []

    async def stop() -> None:
        await until(lambda: [each for each in engines() if each.pid not in known])
        stopped.extend(each for each in engines() if each.pid not in known)
        stopped[0].suspend()
        await until(lambda: not stopped[0].is_running() or stopped[0].status() == psutil.STATUS_ZOMBIE)
        monkeypatch.setattr(process_module, "LOAD_SECONDS", PATIENCE_SECONDS)

    monkeypatch.setattr(process_module, "LOAD_SECONDS", 2.0)
    task = asyncio.create_task(stop())
    yield lambda: stopped[0]
    await task


def test_a_first_load_that_hangs_is_an_error_that_says_so_and_leaves_nothing(tiny_model, monkeypatch):
    async def main() -> None:
        async with the_next_to_load_hangs(monkeypatch) as hung:
            with pytest.raises(EngineLoadsTooLong, match="did not load within 2 s and was killed"):
                await EngineClient.start(EngineConfig(threads=1, model=str(tiny_model)))
        assert not hung().is_running()
        assert engines() == []

    asyncio.run(main())


def test_a_restart_that_hangs_is_killed_and_the_next_one_tried(tiny_model, monkeypatch):
    async def main() -> None:
        async with await EngineClient.start(EngineConfig(threads=1, model=str(tiny_model))) as client:
            assert client.trouble == ""
            async with the_next_to_load_hangs(monkeypatch):
                os.kill(client.info.pid, 9)
                await until(lambda: "did not load within" in client.trouble)
            await until(lambda: client.ready)
            assert (client.trouble, client.restarts) == ("", 1)

    asyncio.run(main())


def test_a_server_whose_engine_hangs_at_its_first_load_says_why_and_gets_ready_all_the_same(
    tiny_model, monkeypatch
):
    async def main() -> None:
        link = EngineLink(EngineConfig(threads=1, model=str(tiny_model)), on_failure=lambda: None)
        try:
            async with the_next_to_load_hangs(monkeypatch):
                link.begin()
                await until(lambda: link.trouble)
                assert (link.status, link.ready, link.failure) == ("loading", False, None)
                assert "did not load within 2 s" in link.trouble
                assert str(tiny_model) not in link.trouble
            await until(lambda: link.ready)
            assert link.trouble == ""
        finally:
            await link.end()

    asyncio.run(main())


def test_the_limit_grows_with_what_has_to_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(process_module, "SLOWEST_BYTES_PER_SECOND", 10)
    (tmp_path / "weights").write_bytes(bytes(1000))
    (tmp_path / "config.json").write_bytes(bytes(500))
    base = process_module.LOAD_SECONDS
    assert base >= 300
    assert load_within_seconds(EngineConfig(model=str(tmp_path / "weights"))) == base + 100
    assert load_within_seconds(EngineConfig(model=str(tmp_path))) == base + 150
