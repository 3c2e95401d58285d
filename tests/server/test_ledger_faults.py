"""Processes are killed and disks refuse, and the ledger lacks no finished request and is never damaged."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from asking import ASK, wait_until
from ledger_rows import rows, said, used

import labsupport
from labsupport.server.launch import Server
from labsupport.server.ledger_file import APPLICATION_ID, LedgerError, open_for_reading, open_for_writing

STREAM = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "ledger"


def serving(file: Path) -> Server:
    return labsupport.serve("pocket", slots=8, context=2048, debug=True, ledger=file)


@pytest.fixture
def server(file) -> Iterator[Server]:
    with serving(file) as running:
        yield running


class Load:
    """Clients that ask without pause, and note what they were told when the last byte had come."""

    def __init__(self, server: Server, clients: int = 6) -> None:
        self.finished: dict[str, tuple[int, int, int]] = {}
        self.failures: list[openai.APIError] = []
        self._server = server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()

    def has_finished(self, count: int) -> bool:
        return len(self.finished) >= count

    def _ask(self, number: int) -> None:
        # Short answers: they end often, so that a kill comes between a commit and the last byte. One is long.
        client = self._server.openai(timeout=60)
        options = {"max_tokens": 200 if number == 0 else 1 + number, "n": 1 + number % 2}
        while not self._stop.is_set():
            try:
                asked = client.chat.completions.create(
                    model=self._server.model, messages=ASK, extra_body={"ignore_eos": True}, **options,
                    **(STREAM if number % 3 == 0 else {}),
                )  # fmt: skip
                answer = asked if number % 3 else list(asked)[-1]
                self.finished[answer.id] = said(answer.usage)
            except (openai.APIError, httpx.TransportError) as error:
                self.failures.append(error)
                time.sleep(0.05)


def test_kill_9_of_the_server_loses_no_finished_request_time_and_again(file):
    finished, unfinished = {}, 0
    for killed_after in (10, 25, 40):
        with serving(file) as server, Load(server) as load:
            wait_until(partial(load.has_finished, killed_after), what="some answers")
            os.kill(server.pid, signal.SIGKILL)
            wait_until(lambda: load.failures != [], what="the news of it")
        finished |= load.finished

        written = rows(file)  # the first to open it after the kill; whole, says SQLite

        assert {id: used(written[id]) for id in finished} == finished
        ended = [row for row in written.values() if row["finish_reason"]]
        assert {row["finish_reason"] for row in ended} <= {"length", "abort"}
        # What ran at that moment has its row as well, without an end, and nobody knows its tokens
        cut = [row for row in written.values() if row["finish_reason"] is None]
        assert len(cut) > unfinished
        assert {(row["finished_at"], *used(row)) for row in cut} == {(None, None, None, None)}
        unfinished = len(cut)


def test_the_first_byte_waits_for_the_row(file):
    with serving(file) as server:
        client = server.openai()
        client.chat.completions.create(model="pocket", messages=ASK, max_tokens=1)
        seen: list[str] = []

        def read() -> None:
            with contextlib.suppress(openai.APIError, httpx.TransportError):
                seen.extend(chunk.id for chunk in client.chat.completions.create(
                    model="pocket", messages=ASK, max_tokens=100, **STREAM, extra_body={"ignore_eos": True}
                ))  # fmt: skip

        reading = threading.Thread(target=read)
        # When the row of a request that has just begun cannot be written yet, and tokens have come
        with held_by_another_program(server, file):
            reading.start()
            wait_until(lambda: server.metrics()["labsupport:generation_tokens_total"] > 1, what="a token")
            os.kill(server.pid, signal.SIGKILL)
            reading.join(60)

    # Then the client has nothing of which the ledger knows nothing
    assert set(seen) <= rows(file).keys()
    assert len(rows(file)) == 1 + len(set(seen))


def test_the_last_byte_waits_for_the_row(file):
    with serving(file) as server:
        chunks = iter(
            server.openai().chat.completions.create(
                model="pocket", messages=ASK, max_tokens=100, **STREAM, extra_body={"ignore_eos": True}
            )
        )
        begun = next(chunks)
        wait_until(lambda: file.exists() and begun.id in rows(file), what="the row of what runs")

        # When the row cannot be written yet, and the last token has come
        with held_by_another_program(server, file):
            while not next(chunks).choices[0].finish_reason:
                pass
            time.sleep(0.3)
            os.kill(server.pid, signal.SIGKILL)

            # Then the client never saw the end of what the ledger does not have
            with pytest.raises((openai.APIError, httpx.TransportError)):
                list(chunks)

    assert rows(file)[begun.id]["finish_reason"] is None


def test_a_bill_can_be_read_after_kill_9_with_nothing_done_before(file):
    with serving(file) as server, Load(server) as load:
        wait_until(lambda: len(load.finished) >= 12, what="some answers")
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: load.failures != [], what="the news of it")

    words = [sys.executable, "-m", "labsupport", "usage", file, "--json"]
    printed = subprocess.run(words, capture_output=True, text=True, timeout=120)

    assert printed.returncode == 0, printed.stderr
    total = json.loads(printed.stdout)["total"]
    assert total["requests"] >= len(load.finished)
    assert total["unfinished"] >= 1
    assert total["completion_tokens"] >= sum(out for _, _, out in load.finished.values())


def test_kill_9_of_the_engine_makes_errors_of_what_ran_and_keeps_the_rest(server, file):
    with Load(server) as load:
        wait_until(lambda: len(load.finished) >= 10, what="some answers")
        os.kill(server.get("/debug/engine").json()["pid"], signal.SIGKILL)
        wait_until(lambda: load.failures != [], what="the news of it")
        before = len(load.finished)
        wait_until(lambda: len(load.finished) > before + 10, seconds=120, what="answers from the next engine")

    written = rows(file)
    failed = [row for row in written.values() if row["finish_reason"] == "error"]
    assert {id: used(written[id]) for id in load.finished} == load.finished
    assert written.keys() - load.finished.keys() == {row["id"] for row in failed}
    assert {row["error"] for row in failed} == {"engine_died"}
    # Whoever was told that the engine died has a row; who came while there was none was refused, without one
    died = [failure for failure in load.failures if getattr(failure, "code", None) == "engine_died"]
    assert len(died) == len(failed) > 0


def test_a_clean_end_leaves_one_file_with_every_request_ended(file):
    with serving(file) as server:
        stream = server.openai().chat.completions.create(
            model="pocket", messages=ASK, max_tokens=400, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        psutil.Process(server.pid).terminate()
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
        wait_until(
            lambda: not psutil.pid_exists(server.pid) or _is_zombie(server.pid), what="the server's end"
        )

    assert [file] == list(file.parent.glob("ledger*"))
    assert [row["finish_reason"] for row in rows(file).values()] == ["length"]


def _is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@contextlib.contextmanager
def full_disk(server: Server, file: Path) -> Iterator[None]:
    """No file of the server may grow any more, as on a full disk."""
    hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)[1]
    most_bytes = max(one.stat().st_size for one in file.parent.glob("ledger*"))
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))


@contextlib.contextmanager
def held_by_another_program(server: Server, file: Path) -> Iterator[None]:
    """Somebody else is writing the file, and does not come to an end."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


LONG = 1500  # tokens, which take a second or more: the fault comes before their end


@pytest.mark.parametrize("fault", [full_disk, held_by_another_program])
def test_a_ledger_that_cannot_be_written_refuses_new_requests_and_loses_none(
    server: Server, file: Path, fault: Callable[[Server, Path], contextlib.AbstractContextManager[None]]
):
    client = server.openai()
    stream = client.chat.completions.create(
        model="pocket", messages=ASK, max_tokens=LONG, **STREAM, extra_body={"ignore_eos": True}
    )
    begun = next(iter(stream))

    with fault(server, file):
        # The answer in progress goes out whole
        *_, last = stream
        assert last.usage.completion_tokens == LONG
        # What comes next is refused at once, with the reason and a time to retry; the server itself is well
        begin = time.monotonic()
        with pytest.raises(openai.InternalServerError) as refused:
            client.chat.completions.create(model="pocket", messages=ASK, max_tokens=2)
        assert time.monotonic() - begin < 5
        assert (refused.value.status_code, refused.value.code) == (503, "ledger_unavailable")
        assert int(refused.value.response.headers["Retry-After"]) >= 1
        assert server.get("/health/ready").json() == {"status": "ledger_unavailable"}
        assert server.get("/health/ready").status_code == 503
        assert server.get("/health/live").status_code == 200
        # The row that could not be written stands in the log, in case that nobody lives to write it
        logged = [line for line in server.log_tail(100).splitlines() if "not in the ledger yet: " in line]
        assert len(logged) == 1
        assert json.loads(logged[0].partition("yet: ")[2])["completion_tokens"] == LONG

    # And once it can be written again, it is, without help
    wait_until(lambda: server.get("/health/ready").status_code == 200, what="readiness")
    answer = client.chat.completions.create(model="pocket", messages=ASK, max_tokens=2)
    written = rows(file)
    assert written.keys() == {begun.id, answer.id}
    assert used(written[begun.id]) == said(last.usage)


def test_a_full_disk_is_told_at_the_start_before_anything_is_loaded(file):
    words = [sys.executable, "-m", "labsupport", "serve", "--port", "0", "--ledger", file]
    result = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )

    assert result.returncode == 1
    assert f"labsupport serve: the ledger {file} cannot be written: " in result.stderr
    assert "What to do: " in result.stderr
    assert "Traceback" not in result.stderr
    assert "engine" not in result.stderr


def another_programs(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE requests (id)")


def a_later_format(file: Path) -> None:
    open_for_writing(file).close()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 3")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda file: file.mkdir(), "cannot be"),
        (
            lambda file: file.parent.joinpath("x").touch() or file.symlink_to(file.parent / "x" / "y"),
            "cannot be",
        ),
        (
            lambda file: file.write_text("not SQLite, but long enough to look like something" * 40),
            "cannot be",
        ),
        (another_programs, "another program's SQLite file"),
        (a_later_format, "version 3"),
    ],
    ids=["folder", "no-folder", "no-database", "other-database", "later-format"],
)
def test_a_file_that_is_no_ledger_is_refused_and_left_alone(file, make, complaint):
    make(file)
    before = file.read_bytes() if file.is_file() else None

    with pytest.raises(LedgerError, match=complaint) as raised:
        open_for_writing(file)
    assert str(file) in str(raised.value)
    with (
        pytest.raises(LedgerError, match="no ledger" if before is None else complaint),
        open_for_reading(file),
    ):
        pass

    assert (file.read_bytes() if file.is_file() else None) == before


def test_a_missing_ledger_is_not_made_by_reading(file):
    with pytest.raises(LedgerError, match=f"no ledger {file}"), open_for_reading(file):
        pass

    assert list(file.parent.iterdir()) == []


def test_a_ledger_is_known_by_its_header(file):
    open_for_writing(file).close()

    assert int.from_bytes(file.read_bytes()[68:72], "big") == APPLICATION_ID
