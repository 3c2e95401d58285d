"""What is known of schemas, so that one which was read before waits for nobody.

Right means: a schema is known by its text, and a verdict is the same for everybody who sends it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass

from labsupport.engine.grammars.json_schema import Schema

MOST_VERDICTS = 500
"""A grammar has at most 200,000 characters (`grammars.rules`), and mostly a few thousand."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """grammar: in GBNF, of a schema that can be followed. refusal: else, why it cannot, in words."""

    grammar: str = ""
    refusal: str = ""


class Verdicts:
    """The latest; what was asked for least recently is forgotten first. Safe for several threads."""

    def __init__(self, most: int = MOST_VERDICTS) -> None:
        self._most = most
        self._known: OrderedDict[bytes, Verdict] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: bytes) -> Verdict | None:
        """What was kept under a schema's name, if it still is."""
        with self._lock:
            if name in self._known:
                self._known.move_to_end(name)
            return self._known.get(name)

    def keep(self, name: bytes, verdict: Verdict) -> None:
        """Remember a verdict."""
        with self._lock:
            self._known[name] = verdict
            self._known.move_to_end(name)
            if len(self._known) > self._most:
                self._known.popitem(last=False)


def name_of(schema: Schema) -> bytes:
    """The name of a schema of moderate size. The order of its keys counts, as it does in its grammar."""
    return hashlib.sha256(json.dumps(schema).encode()).digest()
