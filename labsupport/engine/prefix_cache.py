"""Finished sequences that are kept because a later prompt may begin with the same tokens.

Right means: what `items` names really holds those tokens; the entry dropped first is the one that went unused
longest; and while somebody runs, no more are kept than are asked for, which may be none. For to keep one is
not free: attention passes over every cell in use, masked or not, so whoever runs pays for it.
(`benchmarks/README.md` says how much.)

How many are asked for is learned as ARC does (Megiddo and Modha, FAST 2003): the tokens of what was dropped
are remembered, without their cells. A prompt that would have found them says that too few were kept, and one
dropped without ever having been of use says that too many were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

FIRST_ROOM = 4
WORTHWHILE_TOKENS = 16
"""Of so many tokens that had to be computed again, it is worth while to learn."""


class PrefixCache:
    """Tokens of retired slots, least recently used first.

    room: how many to keep now beside what runs; at most `most`.
    """

    def __init__(self, most: int) -> None:
        self.room, self._most = min(FIRST_ROOM, most), most
        self._tokens: dict[int, list[int]] = {}
        self._unused: set[int] = set()
        self._dropped: deque[list[int]] = deque(maxlen=most)

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, slot: int) -> bool:
        return slot in self._tokens

    def keep(self, slot: int, tokens: list[int], *, num_prompt: int) -> None:
        """Keep a slot's tokens, which begin with a prompt of that length.

        Of several answers to one prompt the latest is enough, so the one before is the next to be dropped.
        """
        for other, kept in self._tokens.items():
            if common_prefix(kept, tokens) >= num_prompt:
                self._unused.discard(other)  # that it goes says nothing about how many to keep
                self._tokens = {other: kept} | self._tokens
                break
        self._tokens[slot] = tokens
        self._unused.add(slot)

    def touch(self, slot: int) -> None:
        """Note that a slot was of use, which makes it the last to be dropped."""
        self._tokens[slot] = self._tokens.pop(slot)
        self._unused.discard(slot)
        self.room = max(1, self.room)

    def drop_oldest(self, *, sparing: int | None = None) -> int | None:
        """Forget the slot that went unused longest, and name it; None when there is none but `sparing`."""
        for slot in self._tokens:
            if slot != sparing:
                self._dropped.append(self._tokens.pop(slot))
                if slot in self._unused:
                    self._unused.remove(slot)
                    self.room = max(0, self.room - 1)
                return slot
        return None

    def learn(self, tokens: list[int], found: int) -> None:
        """Note a prompt of which `found` tokens were there: would more have been, had more been kept?"""
        for dropped in self._dropped:
            if common_prefix(dropped, tokens) >= found + WORTHWHILE_TOKENS:
                self._dropped.remove(dropped)
                self.room = min(self._most, max(1, 2 * self.room))
                return

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
