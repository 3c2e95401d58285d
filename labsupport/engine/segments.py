"""Cells told apart by who holds them.

Sequences share cells from their first token on, never in the middle, so those of all slots together make a
forest: a stretch that some slots have in common, then branches. Right means that every held cell is in
exactly one stretch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from labsupport.engine.prefix_cache import common_prefix


class Stretch(NamedTuple):
    """Cells `start` to `start` + `length` of each of `slots`, which are the same cells."""

    start: int
    length: int
    slots: tuple[int, ...]


def stretches(cells: Mapping[int, list[int]]) -> Iterator[Stretch]:
    """The stretches of some slots, given each one's cells in order; a branch follows its trunk."""
    yield from _branches(cells, list(cells), start=0)


def _branches(cells: Mapping[int, list[int]], slots: list[int], *, start: int) -> Iterator[Stretch]:
    """What `slots`, alike as far as `start`, hold from there on."""
    by_next: dict[int, list[int]] = {}
    for slot in slots:
        if len(cells[slot]) > start:
            by_next.setdefault(cells[slot][start], []).append(slot)
    for alike in by_next.values():
        first = cells[alike[0]]
        end = min((common_prefix(first, cells[slot]) for slot in alike[1:]), default=len(first))
        yield Stretch(start, end - start, tuple(alike))
        yield from _branches(cells, alike, start=end)
