"""The API keys and what each may use, read from a file.

One key a line, followed by settings where wanted; blank lines and lines that begin with # are skipped:

    5f3c9a…                                   a key without limits, named after its digest
    81d0be… name=alice requests-per-minute=60 tokens-per-minute=20000 concurrent=4
    c44a90… name=nightly priority=5           gives way to other keys
    09b7fe… name=support weight=3             gets three times the share of each of the others

Right means: a file with a mistake is refused with the number of the line, because a misspelt limit that is
passed over is no limit; and no message, log or ledger ever holds a key.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from labsupport.engine.config import LARGEST_WEIGHT
from labsupport.errors import LabsupportError

LARGEST_LIMIT = 2**53
"""The largest whole number that every JSON reader keeps exactly."""
LARGEST_PRIORITY = 100
"""Either way, in this file and in requests: what it is worth is in `priorities`."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_FORMAT = "one key a line, of ASCII characters without spaces, then settings like name=alice concurrent=4"


class KeyFileError(LabsupportError):
    """The key file is missing, unreadable, holds no key, or has a mistake in a line."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one key may use; None is without limit.

    requests_per_minute and tokens_per_minute: in any 60 s (see `key_limits`); tokens are those of prompts and
        completions together.
    concurrent: requests in hand at the same time, waiting ones included.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key, as its SHA-256: what was read cannot be told again by any message or memory dump of ours.

    name: stands for the key in logs, the ledger and the engine's queue.
    priority: that of its requests, and the lowest number that they may ask for (see `priorities`).
    weight: how many times another's share it gets, where the engine is fair between keys.
    """

    name: str
    digest: bytes
    limits: Limits = Limits()
    priority: int = 0
    weight: int = 1


def digest(secret: str) -> bytes:
    """What is kept and compared in place of a key. Every length gives the same."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a file, in its order. Raises KeyFileError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"the key file {path} cannot be read: {error}") from error
    keys: dict[int, Key] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            key = _key(words)
            for earlier, other in keys.items():
                if key.digest == other.digest:
                    raise ValueError(f"the same key stands in line {earlier}")
                if key.name == other.name:
                    raise ValueError(f"the name {key.name!r} is taken by line {earlier}")
        except ValueError as error:
            raise KeyFileError(f"the key file {path}, line {number}: {error}", allowed=_FORMAT) from None
        keys[number] = key
    if not keys:
        raise KeyFileError(
            f"the key file {path} holds no key",
            allowed=_FORMAT,
            remedy=f"write one: `openssl rand -hex 24 > {path}`",
        )
    return tuple(keys.values())


def _key(words: list[str]) -> Key:
    """One line's key. Raises ValueError, which never quotes what could be a key."""
    secret, *settings = words
    if not secret.isascii() or not secret.isprintable():
        raise ValueError("the key is no header value: it has characters other than printable ASCII")
    if secret.partition("=")[0] in _SETTINGS:
        raise ValueError("it begins with a setting; the key itself comes first")
    given: dict[str, str] = {}
    for word in settings:
        field, equals, value = word.partition("=")
        if not equals or field not in _SETTINGS:
            allowed = ", ".join(f"{name}=…" for name in _SETTINGS)
            raise ValueError(f"what follows the key is no setting that there is ({allowed})")
        if field in given:
            raise ValueError(f"{field} is given twice")
        given[field] = value
    hashed = digest(secret)
    name = given.pop("name", hashed.hex()[:12])
    if not _NAME.fullmatch(name):
        raise ValueError("a name is 1 to 64 letters, digits and . _ @ -, and begins with a letter or digit")
    priority, weight = given.pop("priority", "0"), given.pop("weight", "1")
    return Key(
        name=name,
        digest=hashed,
        priority=_priority(priority),
        weight=_positive("weight", weight, LARGEST_WEIGHT),
        limits=Limits(**{_LIMITS[field]: _positive(field, value) for field, value in given.items()}),
    )


_LIMITS = {
    "requests-per-minute": "requests_per_minute",
    "tokens-per-minute": "tokens_per_minute",
    "concurrent": "concurrent",
}
_SETTINGS = ("name", *_LIMITS, "priority", "weight")


def _positive(field: str, value: str, largest: int = LARGEST_LIMIT) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 20 and 1 <= int(value) <= largest):
        raise ValueError(f"{field} is a whole number from 1 to {largest}, without signs or separators")
    return int(value)


def _priority(value: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,4}", value, re.ASCII) or abs(int(value)) > LARGEST_PRIORITY:
        raise ValueError(f"priority is a whole number from -{LARGEST_PRIORITY} to {LARGEST_PRIORITY}")
    return int(value)
