"""Which priority a request may have: lower numbers are served earlier, as in vLLM.

A request may always give way, by a higher number than its key's. It may not ask for a lower one, or every
client would. Whoever runs the server says in the key file who may: `priority=-5` lets that key's requests
have -5 and more, and gives them -5 where they do not say. Where no keys are asked for, everybody may ask for
anything in the range. What a number is worth is `patience_seconds`, and what it does between keys
`engine.waiting` says: with `fairness`, less than 0 brings a request forward among its own key's only, and a
`weight` is what gets a key more.

The range, `keys.LARGEST_PRIORITY` to either side, is what keeps anybody from waiting for ever: a request of
priority p is overtaken only by those that come within (p + 100) × `patience_seconds` after it. vLLM, whose
name and direction these are (`entrypoints/openai/*/protocol.py`), takes any 64-bit number.
"""

from __future__ import annotations

from collections.abc import Sequence

from labsupport.server.errors import bad_request
from labsupport.server.keys import Key


class Priorities:
    """The priorities of the keys that the server knows; none means that everybody may ask for any."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._lowest = {key.name: key.priority for key in keys}

    def of(self, key: str, asked: int | None) -> int:
        """The priority of a request of the key named `key`. Raises ApiError 400 for one too low."""
        lowest = self._lowest.get(key)
        if asked is None:
            return lowest or 0
        if lowest is not None and asked < lowest:
            raise bad_request(
                f"priority is {asked}, which is served earlier than this key ({key}) may be; "
                f"allowed: {lowest} or more.",
                param="priority",
                code="priority_not_allowed",
            )
        return asked
