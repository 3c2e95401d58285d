"""Overlap counts what training has too; the nearest neighbour is the training prompt most alike."""

from __future__ import annotations

import pytest

from labsupport.evaluation.memory import nearest_answers, ngrams, shared_ngrams

NINE = "one two three four five six seven eight nine"


def test_eight_grams_are_runs_of_eight_words() -> None:
    assert list(ngrams(NINE)) == [tuple(NINE.split()[:8]), tuple(NINE.split()[1:])]
    assert list(ngrams("too short")) == [("too", "short")]


def test_overlap_is_the_share_of_heldout_runs_that_training_has() -> None:
    assert shared_ngrams([NINE], [f"zero {NINE} ten"]) == 1.0
    assert shared_ngrams([NINE], ["one two three four five six seven eight ten"]) == 0.5
    assert shared_ngrams([NINE], ["eight seven six five four three two one"]) == 0.0
    assert shared_ngrams([NINE, NINE, "a b c d e f g h"], iter([NINE])) == pytest.approx(4 / 5)


def test_the_nearest_neighbour_shares_the_rare_words() -> None:
    prompts = ["what is a token ?", "what is a logit ?", "what is a weight ?"]
    answers = ["piece", "score", "number"]
    asked = ["tell me what a logit is", "A WEIGHT, what is it?"]
    assert nearest_answers(asked, prompts, answers) == ["score", "number"]
