"""The usage ledger on disk: a SQLite file with one row for each request that was admitted.

Right means: what was committed is there, whole and uncorrupted, after `kill -9` of any process and after a
power cut; anybody may read the file while a server writes it; and no other program's file is touched.

SQLite keeps a write-ahead log (journal_mode=WAL), so that readers and the writer never wait for each other.
A commit that only the process's death must not undo could leave the flush to the system (synchronous=NORMAL);
a bill should outlive a power cut too, so each commit waits for the disk (synchronous=FULL).
Source: SQLite's pages "Write-Ahead Logging" and "PRAGMA synchronous".
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from labsupport.errors import LabsupportError

APPLICATION_ID = int.from_bytes(b"UtEl", "big")
"""Stands in the file's header, so that no other SQLite file is taken for a ledger."""
VERSION = 2
"""Version 1 had no way to say that nobody knows what a request used."""
BUSY_SECONDS = 2.0
"""How long to wait for another program that is writing the same file."""

_SCHEMA = """
CREATE TABLE requests (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    route TEXT NOT NULL,
    model TEXT NOT NULL,
    arrived_at REAL NOT NULL,
    first_token_at REAL,
    finished_at REAL,
    prompt_tokens INTEGER,
    cached_tokens INTEGER,
    completion_tokens INTEGER,
    finish_reason TEXT,
    error TEXT
) STRICT
"""
_INDEX = "CREATE INDEX requests_of_key ON requests (key, arrived_at)"


class LedgerError(LabsupportError):
    """The ledger cannot be opened, read or written."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One request. It is written when it is admitted, and again, in the same place, when it has ended.

    id: the answer's own, `chatcmpl-…` or `cmpl-…`, by which a client can ask about it.
    key: the name of the API key, never the key; "" where no key is asked for.
    arrived_at, first_token_at, finished_at: seconds since 1970 in UTC; their differences are measured on the
        monotonic clock. None is not yet.
    prompt_tokens, cached_tokens, completion_tokens: exactly what the answer's `usage` says. Of a request that
        did not end by itself, what it had used until then. None is not known: it runs, or it ran when the
        server was killed, or an upstream worked on it and never said.
    finish_reason: those of its choices, each once, joined by commas (`stop`, `length`); `abort` if the client
        left or the server was stopped; `error` if it failed; None while it runs, and for ever if the server
        was killed meanwhile.
    error: the code of the error with which it failed.
    """

    id: str
    key: str
    route: str
    model: str
    arrived_at: float
    first_token_at: float | None = None
    finished_at: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    error: str | None = None


_FIELDS = Row.__struct_fields__
_WRITE = (
    f"INSERT INTO requests ({', '.join(_FIELDS)}) VALUES ({', '.join('?' * len(_FIELDS))}) "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{field} = excluded.{field}' for field in _FIELDS[1:])}"
)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The ledger at `path`, made if it is not there, and proved to be writable.

    The connection may be used from any one thread. Raises LedgerError, with the remedy.
    """
    try:
        path.touch(mode=0o600)  # who asked what and when is nobody else's business
        connection = _connect(path, "rw")
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(
            f"the ledger {path} cannot be written: {error}",
            allowed="a file in a folder that exists, on a local disk with room",
            remedy="choose another with --ledger FILE, or mend what the message names",
        ) from error
    return connection


@contextlib.contextmanager
def open_for_reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The ledger at `path` for the block, which may hold the queries. Raises LedgerError."""
    try:
        if not path.is_file():
            raise LedgerError(
                f"there is no ledger {path}", remedy="a server keeps one if it is told: `--ledger FILE`"
            )
        with contextlib.closing(_connect(path, "ro")) as connection:
            _refuse_others(connection, path)
            yield connection
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(f"the ledger {path} cannot be read: {error}") from error


def write(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """All rows in one transaction; durable on return. Raises sqlite3.Error, and then none is written."""
    with connection:
        connection.executemany(_WRITE, map(msgspec.structs.astuple, rows))


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    tables = _ask(connection, "SELECT count(*) FROM sqlite_master")
    if tables or _ask(connection, "PRAGMA application_id"):
        _refuse_others(connection, path)
    mode = _ask(connection, "PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise LedgerError(
            f"the ledger {path} cannot keep a write-ahead log here (journal mode: {mode})",
            allowed="a file on a local disk",
            remedy="choose another folder with --ledger FILE",
        )
    connection.execute("PRAGMA synchronous = FULL")
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if not _ask(connection, "SELECT count(*) FROM sqlite_master"):  # or another server was quicker
            connection.execute(_SCHEMA)
            connection.execute(_INDEX)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        # Writes a page even if nothing changes: what cannot be written is known before the first request.
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _refuse_others(connection: sqlite3.Connection, path: Path) -> None:
    application, version = _ask(connection, "PRAGMA application_id"), _ask(connection, "PRAGMA user_version")
    if application != APPLICATION_ID:
        raise LedgerError(
            f"{path} is another program's SQLite file, not a ledger", remedy="name another FILE"
        )
    if version != VERSION:
        raise LedgerError(
            f"the ledger {path} has version {version} of its format", allowed=f"version {VERSION}"
        )


def _ask(connection: sqlite3.Connection, question: str) -> Any:
    return connection.execute(question).fetchone()[0]
