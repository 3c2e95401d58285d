"""Ten times as many callers as slots for a minute, on a model that is slow enough to be crowded."""

from __future__ import annotations

import asyncio
import random

import pytest
from pace import slowness

import labsupport
from benchmarks.crowd import TIMES_AS_MANY, Crowd, http_for_a_crowd

SLOTS = 16
MODEL = "synthetic-0.3b"


@pytest.mark.slow
def test_all_are_answered_or_refused_and_those_who_are_let_in_hardly_notice_the_others():
    async def both(url: str) -> tuple[Crowd, Crowd, float, float]:
        async with http_for_a_crowd(url) as http:
            few, many = (Crowd(http, MODEL, random.Random(seed)) for seed in range(2))
            return few, many, await few.run(SLOTS, 30), await many.run(TIMES_AS_MANY * SLOTS, 60)

    pace = slowness()
    with labsupport.serve(MODEL, "q4_k_m", slots=SLOTS, context=512) as server:
        few, many, alone, crowded = asyncio.run(both(server.url))

    assert few.problems + many.problems == []
    assert few.refused == 0
    assert many.refused > TIMES_AS_MANY * SLOTS / 4
    assert many.answered > SLOTS
    assert max(many.health_seconds) / max(pace, slowness()) < 2
    assert len(many.health_seconds) > 60
    assert crowded > alone / 2
