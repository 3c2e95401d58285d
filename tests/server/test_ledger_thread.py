"""The ledger's own thread, where a disk that hangs and a clock that jumps can be had at will."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from asking import wait_until
from ledger_rows import rows

from labsupport.server import ledger as ledger_module
from labsupport.server import ledger_file
from labsupport.server.accounts import Accounts, Request
from labsupport.server.key_limits import KeyLimits
from labsupport.server.ledger import Ledger
from labsupport.server.ledger_file import Row
from labsupport.server.limits import Admission
from labsupport.server.meter import EngineMeter
from labsupport.server.metrics import Metrics


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "ledger"


def row(name: str, **others: object) -> Row:
    return Row(id=name, key="", route="/v1/completions", model="m", arrived_at=1.0, **others)


def test_a_disk_that_hangs_holds_an_answer_for_a_while_only_and_its_row_stands_in_the_log(
    file, monkeypatch, caplog
):
    monkeypatch.setattr(ledger_module, "PATIENCE_SECONDS", 0.5)
    answers, really_write = threading.Event(), ledger_file.write

    def hang(*arguments: object) -> None:
        assert answers.wait(60)
        really_write(*arguments)

    monkeypatch.setattr(ledger_file, "write", hang)
    with Ledger(file) as ledger:
        assert (ledger.trouble, ledger.lag_seconds) == ("", 0)

        asyncio.run(ledger.write(row("one", finish_reason="stop")))

        wait_until(lambda: "has not answered" in ledger.trouble, what="the trouble to show")
        assert ledger.lag_seconds >= 0.5
        (printed,) = [line for line in caplog.messages if line.startswith("not in the ledger yet: ")]
        assert json.loads(printed.partition("yet: ")[2])["id"] == "one"

        answers.set()

        wait_until(lambda: ledger.trouble == "", what="the end of the trouble")
        assert ledger.lag_seconds == 0
        assert ledger.failures == 0
    assert rows(file).keys() == {"one"}


def test_a_disk_that_still_hangs_at_the_end_leaves_what_it_lacks_in_the_log(file, monkeypatch, caplog):
    monkeypatch.setattr(ledger_module, "PATIENCE_SECONDS", 0.5)
    is_asked, answers = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        is_asked.set()
        answers.wait(60)

    monkeypatch.setattr(ledger_file, "write", hang)
    with Ledger(file) as ledger:
        # Nobody waits for the rows of clients that left: no patience of theirs can come to an end
        ledger.post(row("being written", finish_reason="abort"))
        assert is_asked.wait(60)
        ledger.post(row("not begun", finish_reason="abort"))
        ledger.post(row("still runs"))

    printed = [json.loads(line.partition("yet: ")[2])["id"] for line in caplog.messages if "yet: " in line]
    answers.set()
    assert printed == ["being written", "not begun"]


def test_whatever_goes_wrong_in_writing_the_thread_lives_and_the_trouble_shows(file, monkeypatch):
    really_write = ledger_file.write

    def fail(*_: object) -> None:
        raise OverflowError("Python int too large to convert to SQLite INTEGER")

    with Ledger(file) as ledger:
        monkeypatch.setattr(ledger_file, "write", fail)
        asyncio.run(ledger.write(row("one", finish_reason="stop")))
        assert "too large" in ledger.trouble
        assert ledger.failures >= 1

        monkeypatch.setattr(ledger_file, "write", really_write)

        wait_until(lambda: ledger.trouble == "", what="the end of the trouble")
    assert rows(file).keys() == {"one"}


def test_what_a_request_says_waits_until_its_row_is_written(file, monkeypatch):
    answers, really_write = threading.Event(), ledger_file.write

    def hang(*arguments: object) -> None:
        assert answers.wait(60)
        really_write(*arguments)

    async def run(ledger: Ledger) -> None:
        accounts = Accounts(Admission(1), ledger, KeyLimits())
        engine = SimpleNamespace(ready=False, restarts=0, last_report=None)
        meter = EngineMeter(Metrics("m", engine), [1], choices_per_prompt=1, arrived=0.0)
        request = Request(id="one", key="", route="r", model="m", arrived=0.0, sequences=1, most_tokens=1)
        async with accounts.open(request, meter) as account:
            recorded = asyncio.create_task(account.is_recorded())
            await asyncio.sleep(0.3)
            assert not recorded.done()

            answers.set()

            await asyncio.wait_for(recorded, 60)
            assert rows(file)["one"]["finish_reason"] is None
            await account.is_recorded()  # what follows waits no more
            await account.finish()

    with Ledger(file) as ledger:
        monkeypatch.setattr(ledger_file, "write", hang)
        asyncio.run(run(ledger))
    assert rows(file)["one"]["finish_reason"] is not None


@pytest.mark.parametrize("jump_seconds", [-1e9, 1e9])
def test_a_clock_that_jumps_changes_no_duration(file, monkeypatch, jump_seconds):
    engine = SimpleNamespace(ready=False, restarts=0, last_report=None)
    arrived, wall = time.monotonic(), time.time()
    request = Request(id="one", key="", route="r", model="m", arrived=arrived, sequences=1, most_tokens=1)

    async def run(ledger: Ledger) -> None:
        accounts = Accounts(Admission(1), ledger, KeyLimits())
        meter = EngineMeter(Metrics("m", engine), [1], choices_per_prompt=1, arrived=arrived)
        async with accounts.open(request, meter) as account:
            monkeypatch.setattr(time, "time", lambda: wall + jump_seconds)
            await account.finish()

    with Ledger(file) as ledger:
        asyncio.run(run(ledger))

    written = rows(file)["one"]
    assert abs(written["arrived_at"] - wall) < 60
    assert 0 <= written["finished_at"] - written["arrived_at"] < 60
