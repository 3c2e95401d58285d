"""What is drawn from logits: the filters by their definitions, the draw by its distribution and its seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from labsupport.engine.messages import SamplingParams
from labsupport.engine.plan import Draw
from labsupport.engine.sampling import draw, probabilities

LOGITS = np.log(np.array([0.02, 0.4, 0.08, 0.3, 0.2], dtype=np.float32))


def params(**given) -> SamplingParams:
    return SamplingParams(max_tokens=1, **given)


def tokens_left(**given) -> list[int]:
    return probabilities(LOGITS, params(**given))[0].tolist()


def test_greedy_takes_the_likeliest_whatever_the_seed_and_filters():
    for seed in (0, 1, 2**63):
        assert draw(LOGITS, Draw(params(temperature=0.0, top_p=0.1), seed, 0)).token == 1


def test_each_filter_keeps_what_its_definition_keeps():
    assert tokens_left() == [1, 3, 4, 2, 0]
    assert tokens_left(top_k=2) == [1, 3]
    assert tokens_left(top_k=99) == [1, 3, 4, 2, 0]
    assert tokens_left(top_p=0.5) == [1, 3]  # 0.4 falls short of 0.5, 0.4 + 0.3 reaches it
    assert tokens_left(top_p=0.01) == [1]  # never none
    assert tokens_left(min_p=0.45) == [1, 3, 4]  # 0.45 × 0.4 = 0.18
    assert tokens_left(top_k=4, top_p=0.95, min_p=0.3) == [1, 3, 4]
    assert tokens_left(temperature=0.01, top_p=0.9) == [1]  # temperature comes before top-p


def test_the_chances_are_those_of_a_softmax_over_what_is_left():
    _, chances = probabilities(LOGITS, params(top_k=2))
    assert chances == pytest.approx([4 / 7, 3 / 7], rel=1e-5)
    _, sharp = probabilities(LOGITS, params(temperature=0.5))
    squares = np.array([0.4, 0.3, 0.2, 0.08, 0.02]) ** 2
    assert sharp == pytest.approx(squares / squares.sum(), rel=1e-5)


def test_equal_logits_are_taken_in_the_order_of_their_ids():
    tokens, _ = probabilities(np.zeros(10, dtype=np.float32), params(top_k=3))
    assert tokens.tolist() == [0, 1, 2]


def test_draws_follow_the_distribution():
    drawn = [draw(LOGITS, Draw(params(), 5, index)).token for index in range(4000)]
    shares = np.bincount(drawn, minlength=5) / len(drawn)
    assert shares == pytest.approx(np.exp(LOGITS), abs=0.03)


class Only:
    """A constraint that lets some tokens through, and counts how often it is asked for all of them."""

    def __init__(self, *tokens: int) -> None:
        self.tokens, self.asked = list(tokens), 0

    def allows(self, token: int) -> bool:
        return token in self.tokens

    def allowed(self, logits: np.ndarray) -> np.ndarray:
        self.asked += 1
        return np.where(np.isin(np.arange(len(logits)), self.tokens), logits, -np.inf)


def test_under_a_constraint_the_chances_are_those_of_what_it_lets_through():
    held = Only(0, 3, 4)
    drawn = [draw(LOGITS, Draw(params(), 5, index), held).token for index in range(4000)]
    shares = np.bincount(drawn, minlength=5) / len(drawn)
    assert shares == pytest.approx(np.array([0.02, 0, 0, 0.3, 0.2]) / 0.52, abs=0.03)
    assert held.asked < 0.6 * 4000  # 0.48 of the first draws are refused


def test_under_a_constraint_filters_and_greed_keep_to_it_and_logprobs_stay_the_models_own():
    for how in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.01}, {"min_p": 1.0}):
        held = draw(LOGITS, Draw(params(logprobs=2, **how), 3, 0), Only(2, 4))
        free = draw(LOGITS, Draw(params(logprobs=2, temperature=0), 3, 0))
        assert held.token == 4
        assert held.top == free.top
    favourite = Only(1)
    assert draw(LOGITS, Draw(params(temperature=0.0), 0, 0), favourite).token == 1
    assert favourite.asked == 0


def test_a_seed_repeats_its_draws_and_0_is_a_seed_of_its_own():
    def stream(seed: int) -> list[int]:
        return [draw(LOGITS, Draw(params(), seed, index)).token for index in range(40)]

    assert stream(0) == stream(0)
    assert len({tuple(stream(seed)) for seed in (0, 1, 2, -1)}) == 4


@given(
    logits=arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e4, 1e4, width=32)),
    temperature=st.floats(0.01, 10),
    top_k=st.integers(0, 50),
    top_p=st.floats(0.001, 1),
    min_p=st.floats(0, 1),
    seed=st.integers(),
    index=st.integers(0, 10**6),
)
def test_any_parameters_draw_a_token_that_the_filters_left(
    logits, temperature, top_k, top_p, min_p, seed, index
):
    how = params(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    tokens, chances = probabilities(logits, how)
    assert chances.sum() == pytest.approx(1)
    assert len(tokens) == len(chances) >= 1
    assert logits[tokens[0]] == logits.max()
    assert draw(logits, Draw(how, seed, index)).token in tokens


def test_logprobs_are_the_models_own_before_temperature_and_filters():
    drawn = draw(LOGITS, Draw(params(temperature=0.0, top_k=1, logprobs=3), 0, 0))
    assert drawn.logprob == pytest.approx(np.log(0.4), rel=1e-5)
    assert [token for token, _ in drawn.top] == [1, 3, 4]
    assert [logprob for _, logprob in drawn.top] == pytest.approx(np.log([0.4, 0.3, 0.2]), rel=1e-5)
    assert draw(LOGITS, Draw(params(temperature=0.0, logprobs=0), 0, 0)).top == ()


@pytest.mark.parametrize("filters", [{"top_p": 0.5}, {"top_p": 0.999}, {"min_p": 0.1}, {"min_p": 1e-4}, {}])
def test_a_large_vocabulary_is_filtered_like_a_fully_sorted_one(filters):
    # Given 2,000 logits, and the definition spelled out over all of them in order
    logits = np.random.default_rng(3).normal(0, 2, 2000).astype(np.float32)
    order = np.argsort(-logits, kind="stable")
    weights = np.exp(logits[order].astype(np.float64))
    weights /= weights.sum()
    kept = np.cumsum(weights) - weights < filters.get("top_p", 2)
    kept &= weights >= filters.get("min_p", 0) * weights[0]
    # Then the tokens and their chances are those, whether few or nearly all are kept
    tokens, chances = probabilities(logits, params(**filters))
    assert tokens.tolist() == order[kept].tolist()
    assert chances == pytest.approx(weights[kept] / weights[kept].sum(), rel=1e-5)
