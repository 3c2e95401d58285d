"""The pool's books: what is held, shared, kept and free, after any sequence of calls."""

from __future__ import annotations

import pytest

from labsupport.engine.kv_pool import KVPool
from labsupport.engine.prefix_cache import PrefixCache, common_prefix


def test_a_shared_prefix_takes_no_cells_and_outlives_its_source():
    # Given a slot of 6 tokens, and a second that shares 4 of them and adds 1
    pool = KVPool(num_cells=10, num_slots=3)
    source, target = pool.open(), pool.open()
    pool.append(source, 6)
    pool.share(source, target, 4)
    pool.append(target, 1)
    assert (pool.num_used, pool.num_free) == (7, 3)
    # When the source is closed, only the 2 cells that nobody else holds are free
    pool.close(source)
    assert (pool.num_used, pool.num_free, pool.length(target)) == (5, 5, 5)
    pool.close(target)
    assert (pool.num_used, pool.num_free) == (0, 10)
    assert pool.check_integrity() == []


def test_a_retired_slot_counts_as_available_except_for_what_a_running_one_shares():
    pool = KVPool(num_cells=10, num_slots=3)
    kept, running = pool.open(), pool.open()
    pool.append(kept, 6)
    pool.retire(kept)
    assert (pool.num_used, pool.num_cached, pool.num_available, pool.num_free) == (0, 6, 10, 4)
    pool.share(kept, running, 4)
    assert (pool.num_used, pool.num_cached, pool.num_available, pool.num_free) == (4, 2, 6, 4)
    pool.close(kept)
    assert (pool.num_used, pool.num_cached, pool.num_free) == (4, 0, 6)
    assert pool.check_integrity() == []


def test_the_pool_is_never_over_committed():
    pool = KVPool(num_cells=4, num_slots=2)
    slot = pool.open()
    pool.append(slot, 3)
    with pytest.raises(MemoryError, match="2 cells wanted, 1 free"):
        pool.append(slot, 2)
    assert (pool.length(slot), pool.num_free) == (3, 1)
    pool.open()
    with pytest.raises(IndexError):
        pool.open()


def test_the_integrity_check_sees_each_kind_of_broken_book():
    def broken(breakage) -> list[str]:
        pool = KVPool(num_cells=4, num_slots=2)
        slot = pool.open()
        pool.append(slot, 2)
        assert pool.check_integrity() == []
        breakage(pool, slot)
        return pool.check_integrity()

    assert any("holders" in each for each in broken(lambda pool, slot: pool._holders.__setitem__(3, 7)))
    assert any("free list" in each for each in broken(lambda pool, slot: pool._free_cells.pop()))
    assert any(
        "twice" in each for each in broken(lambda pool, slot: pool._cells[slot].append(pool._cells[slot][0]))
    )
    assert any("at once" in each for each in broken(lambda pool, slot: pool._free_slots.append(slot)))
    assert any(
        "said to be held" in each for each in broken(lambda pool, slot: setattr(pool, "_num_pinned", 3))
    )


def test_the_prefix_unused_longest_goes_first():
    cache = PrefixCache(16)
    for slot in (1, 2, 3):
        cache.keep(slot, [slot], num_prompt=1)
    cache.touch(1)
    assert [cache.drop_oldest(sparing=2), cache.drop_oldest(), cache.drop_oldest()] == [3, 2, 1]
    assert cache.drop_oldest() is None


def test_of_several_answers_to_a_prompt_the_latest_is_enough():
    cache = PrefixCache(16)
    cache.keep(0, [5, 5], num_prompt=2)
    for slot in (1, 2):
        cache.keep(slot, [7, 7, 7, slot], num_prompt=3)
    room = cache.room
    assert cache.drop_oldest() == 1
    assert cache.room == room
    assert [slot for slot, _ in cache.items()] == [0, 2]


def test_as_many_prefixes_are_kept_as_prompts_ask_for():
    cache = PrefixCache(16)
    prompts = [[user] * 40 for user in range(12)]

    def ask(user: int, slot: int) -> bool:
        found = next((kept for kept, tokens in cache.items() if tokens == prompts[user]), None)
        cache.learn(prompts[user], found=0 if found is None else 39)
        if found is not None:
            cache.touch(found)
        cache.keep(slot, prompts[user], num_prompt=40)
        while len(cache) > cache.room:
            cache.drop_oldest()
        return found is not None

    for slot in range(100):  # strangers, who never come back
        cache.learn([1000 + slot] * 40, found=0)
        cache.keep(slot, [1000 + slot] * 40, num_prompt=40)
        while len(cache) > cache.room:
            cache.drop_oldest()
    assert cache.room == len(cache) == 0
    hits = [[ask(user, 1000 + 12 * turn + user) for user in range(4)] for turn in range(6)]
    assert all(hits[-1])  # four who come back by turns
    assert 4 <= cache.room <= 16
    assert not PrefixCache(0).room


@pytest.mark.parametrize("length", range(12))
def test_common_prefix_is_found_to_the_token(length):
    first, second = list(range(11)), list(range(11))
    if length < 11:
        second[length] = -1
    assert common_prefix(first, [*second, 5]) == min(length, 11)
    assert common_prefix([], second) == 0
