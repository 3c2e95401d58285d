"""Finished sequences that are kept because a later prompt may begin with the same tokens.

Right means: what `longest` names really holds those tokens, and the entry dropped first is the one that went
unused longest.
"""

from __future__ import annotations

from collections.abc import Iterable


class PrefixCache:
    """Tokens of retired slots, least recently used first."""

    def __init__(self) -> None:
        self._tokens: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, slot: int) -> bool:
        return slot in self._tokens

    def keep(self, slot: int, tokens: list[int]) -> None:
        self._tokens[slot] = tokens

    def touch(self, slot: int) -> None:
        """Note that a slot was of use, which makes it the last to be dropped."""
        self._tokens[slot] = self._tokens.pop(slot)

    def drop_oldest(self, *, sparing: int | None = None) -> int | None:
        """Forget the slot that went unused longest, and name it; None when there is none but `sparing`."""
        for slot in self._tokens:
            if slot != sparing:
                del self._tokens[slot]
                return slot
        return None

    def items(self) -> Iterable[tuple[int, list[int]]]:
        return self._tokens.items()


def common_prefix(first: list[int], second: list[int]) -> int:
    """How many tokens two lists have in common from the start."""
    low, high = 0, min(len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while high - low > 1:  # first[:low] is equal, first[:high] is not
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low
