"""Reading a ledger as anybody can, with SQLite and nothing of ours."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path


def rows(ledger: Path) -> dict[str, dict]:
    """Every request, by its answer's id. Fails the test if the file is damaged."""
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        connection.row_factory = sqlite3.Row
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return {row["id"]: dict(row) for row in connection.execute("SELECT * FROM requests")}


def used(row: dict) -> tuple[int, int, int]:
    """Tokens in, cached and out."""
    return row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"]


def said(usage) -> tuple[int, int, int]:
    """The same, of an answer's `usage`."""
    return usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens, usage.completion_tokens
