"""Turns: none is lost, none is idle while somebody waits, and keys take them one after the other."""

from __future__ import annotations

import asyncio
import random

import pytest

from labsupport.server.turns import Turns


class Crowd:
    """Tasks that each want one turn. `order`: who got one, in order; `at_work`: who has one now."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self.at_work: list[str] = []
        self.most_at_work = 0

    async def ask(self, key: str, seconds: float = 0.0) -> None:
        async with self.turns.hold(key):
            self.order.append(key)
            self.at_work.append(key)
            self.most_at_work = max(self.most_at_work, len(self.at_work))
            try:
                await asyncio.sleep(seconds)
            finally:
                self.at_work.remove(key)


def test_a_key_with_many_requests_makes_another_wait_for_one_turn_only():
    async def run() -> str:
        turns = Turns(1)
        crowd = Crowd(turns)
        async with turns.hold("A"):
            tasks = [asyncio.create_task(crowd.ask(key)) for key in "AAAAABBC"]
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
        return "".join(crowd.order)

    assert asyncio.run(run()) == "ABCABAAA"


def test_within_a_key_it_is_first_come_first_served():
    async def run() -> list[int]:
        turns, order = Turns(1), []

        async def ask(number: int) -> None:
            async with turns.hold("A"):
                order.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*(ask(number) for number in range(20)))
        return order

    assert asyncio.run(run()) == list(range(20))


@pytest.mark.parametrize("seed", range(20))
def test_whoever_leaves_at_whatever_moment_takes_no_turn_along(seed):
    async def run() -> None:
        moments = random.Random(seed)
        turns = Turns(3)
        crowd = Crowd(turns)
        tasks: list[asyncio.Task[None]] = []
        for _ in range(300):
            tasks.append(
                asyncio.create_task(crowd.ask(moments.choice("ABCD"), moments.choice([0, 0, 0.0005])))
            )
            for _ in range(moments.randrange(3)):
                await asyncio.sleep(0)
            if moments.random() < 0.5:
                moments.choice(tasks).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert crowd.at_work == []
        assert crowd.most_at_work == 3
        # All three are there again, and nobody is waited for
        held = [turns.hold(key) for key in "XYZ"]
        for one in held:
            await asyncio.wait_for(one.__aenter__(), 5)
        assert turns._lines == {}

    asyncio.run(run())
