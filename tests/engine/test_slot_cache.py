"""The cache of slots: what was written is found again, whatever is copied, freed and moved in between."""

from __future__ import annotations

import random

import pytest
import torch

from labsupport.engine.runners.bnb.slot_cache import SlotCache

SLOTS, CONTEXT = 6, 20


def new_cache() -> SlotCache:
    return SlotCache(
        layers=2,
        num_slots=SLOTS,
        kv_heads=2,
        head_dim=4,
        context_tokens=CONTEXT,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def write(cache: SlotCache, slot: int, value: float) -> None:
    """One token more, whose keys are `value` and whose values are its negative."""
    for layer in range(2):
        keys, values = cache.layer(layer)
        keys[cache.row(slot), :, cache.length(slot)] = value + layer
        values[cache.row(slot), :, cache.length(slot)] = -value - layer
    cache.extend(slot, 1)


def read(cache: SlotCache, slot: int) -> list[float]:
    """The values that `write` wrote into a slot."""
    keys, values = cache.layer(1)
    cells = keys[cache.row(slot), :, : cache.length(slot)]
    assert torch.equal(cells, -values[cache.row(slot), :, : cache.length(slot)])
    assert torch.equal(cells, cache.layer(0)[0][cache.row(slot), :, : cache.length(slot)] + 1)
    return [float(number) - 1 for number in cells[0, :, 0]]


def test_what_a_slot_holds_is_found_again_whatever_moves():
    # Given a thousand random operations beside a plain record of what each slot should hold
    cache, choose = new_cache(), random.Random(0)
    held: list[list[float]] = [[] for _ in range(SLOTS)]
    for number in range(1000):
        slot, other = choose.sample(range(SLOTS), 2)
        match choose.randrange(5):
            case 0:
                cache.free(slot)
                held[slot] = []
            case 1 if held[slot] and not held[other]:
                length = choose.randint(1, len(held[slot]))
                cache.copy(slot, other, length)
                held[other] = held[slot][:length]
            case 2:
                front = choose.sample(range(SLOTS), choose.randint(1, SLOTS))
                cache.bring_to_front(front)
                assert {cache.row(each) for each in front} == set(range(len(front)))
            case _ if len(held[slot]) < CONTEXT:
                write(cache, slot, number)
                held[slot].append(float(number))
        # Then every slot holds what it should, and no two share a row
        assert [read(cache, each) for each in range(SLOTS)] == held
        assert sorted(cache.row(each) for each in range(SLOTS)) == list(range(SLOTS))


def test_a_batch_that_is_in_front_already_is_not_moved():
    cache = new_cache()
    cache.bring_to_front([4, 2])
    rows = [cache.row(slot) for slot in range(SLOTS)]
    cache.bring_to_front([2, 4])
    assert [cache.row(slot) for slot in range(SLOTS)] == rows


def test_a_freed_slot_leaves_nothing_behind():
    cache = new_cache()
    write(cache, 3, 7.0)
    cache.free(3)
    assert not any(part.any() for layer in range(2) for part in cache.layer(layer))


@pytest.mark.parametrize(("source", "target", "length"), [(0, 1, 3), (0, 2, 1), (1, 2, 1), (0, 1, 0)])
def test_an_impossible_copy_is_refused(source, target, length):
    cache = new_cache()
    for slot in (0, 0, 2):
        write(cache, slot, 1.0)
    with pytest.raises(ValueError, match="cannot be copied"):
        cache.copy(source, target, length)


def test_the_scratch_column_is_beyond_the_longest_sequence():
    assert new_cache().scratch >= CONTEXT
