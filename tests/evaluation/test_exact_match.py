"""Exact match forgives nothing but white space at the ends, and says how sure its sample allows it to be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsupport.errors import LabsupportError
from labsupport.evaluation.exact_match import ExactMatch, exact_match


def _says(*answers: str) -> object:
    def answer(_: Sequence[str]) -> list[str]:
        return list(answers)

    return answer


def test_only_the_very_same_text_is_right() -> None:
    match = exact_match(
        _says("28 GB.", " 28 GB.\n", "28 GB", "28 gb.", ""), ["a", "b", "c", "d", "e"], ["28 GB."] * 5
    )
    assert (match.right, match.asked, match.share) == (2, 5, 0.4)
    assert [(miss.prompt, miss.given) for miss in match.misses] == [
        ("c", "28 GB"),
        ("d", "28 gb."),
        ("e", ""),
    ]


@pytest.mark.parametrize("right", [0, 3, 45, 50])
def test_the_interval_is_wilsons(right: int) -> None:
    """Its ends are where a true share p would put the observed one exactly 1.96 standard errors away."""
    share, asked = right / 50, 50
    for end in ExactMatch(asked, right, ()).interval:
        assert (share - end) ** 2 == pytest.approx(1.96**2 * end * (1 - end) / asked, abs=1e-12)


@given(asked=st.integers(1, 1000), data=st.data())
def test_the_interval_holds_the_share_and_narrows_with_the_sample(asked: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, asked))
    low, high = ExactMatch(asked, right, ()).interval
    assert 0.0 <= low <= right / asked + 1e-9
    assert right / asked - 1e-9 <= high <= 1.0
    narrower_low, narrower_high = ExactMatch(asked * 4, right * 4, ()).interval
    assert narrower_high - narrower_low < high - low


def test_nothing_to_compare_is_an_error_not_a_score() -> None:
    with pytest.raises(LabsupportError, match="0 prompts"):
        exact_match(_says(), [], [])
    with pytest.raises(LabsupportError, match="1 expected"):
        exact_match(_says("x", "y"), ["a", "b"], ["x"])
    with pytest.raises(LabsupportError, match="got 1 answers"):
        exact_match(_says("x"), ["a", "b"], ["x", "y"])
