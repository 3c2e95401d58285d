"""Sampling a batch on the device draws what `engine.sampling`, one row at a time, says it should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labsupport.engine import sampling
from labsupport.engine.messages import SamplingParams
from labsupport.engine.plan import Draw
from labsupport.engine.runners.bnb import device_sampling
from labsupport.engine.runners.bnb.device_sampling import draw_rows


def how(seed: int, index: int = 0, **params) -> Draw:
    so_far = [4, 3, 0, 1, 1, 2, 1, 0, 4][: index + 2]
    return Draw(SamplingParams(max_tokens=1, **params), seed, index, so_far)


KINDS = [
    {"temperature": 0},
    {"temperature": 0.7},
    {"temperature": 5.0},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 2**31 - 1},
    {"top_k": 600, "temperature": 20.0},
    {"top_p": 0.9},
    {"top_p": 1e-6},
    {"top_p": 0.999, "temperature": 30.0},
    {"min_p": 0.2},
    {"min_p": 1.0},
    {"top_k": 40, "top_p": 0.8, "min_p": 0.05, "temperature": 2.0},
    {"temperature": 0, "logit_bias": ((4, 9.0), (0, -100.0))},
    {"temperature": 0, "repetition_penalty": 5.0},
    {"temperature": 3.0, "frequency_penalty": 2.0, "presence_penalty": -1.0, "top_k": 9},
    {"frequency_penalty": -1.5, "repetition_penalty": 0.5, "logit_bias": ((1, 3.0),), "top_p": 0.9},
]


@pytest.mark.parametrize("vocabulary", [5, 300, 2000])
def test_a_batch_of_every_kind_draws_what_each_row_alone_would(vocabulary):
    # Given rows with every kind of parameters in one batch, some logits equal to each other
    random = np.random.default_rng(vocabulary)
    draws = [how(seed, seed % 7, **kind) for seed in range(20) for kind in KINDS]
    logits = random.normal(0, 3, (len(draws), vocabulary)).astype(np.float32).round(1)
    # When they are drawn together
    drawn = draw_rows(torch.from_numpy(logits), draws)
    # Then each is the token of the definition
    assert [each.token for each in drawn] == [
        sampling.draw(row, each).token for row, each in zip(logits, draws, strict=True)
    ]


def test_a_filter_that_keeps_more_than_the_likeliest_few_is_not_cut_short():
    # Given 5,000 tokens of equal weight but for one, of which top-p keeps 4,500
    logits = torch.zeros(400, 5000)
    logits[:, 0] = 1e-3
    drawn = draw_rows(logits, [how(seed, top_p=0.9) for seed in range(400)])
    tokens = np.array([each.token for each in drawn])
    assert tokens.max() > 4000
    assert tokens.max() < 4500
    assert np.median(tokens) == pytest.approx(2250, abs=300)


def test_log_probabilities_are_the_models_own_and_only_where_they_were_asked_for():
    random = np.random.default_rng(1)
    logits = random.normal(0, 3, (4, 50)).astype(np.float32)
    draws = [how(0, logprobs=3), how(1), how(2, logprobs=0, temperature=0), how(3, logprobs=50, top_k=2)]
    drawn = draw_rows(torch.from_numpy(logits), draws)
    for row, each, got in zip(logits, draws, drawn, strict=True):
        expected = sampling.draw(row, each)
        assert got.token == expected.token
        assert got.logprob == pytest.approx(expected.logprob)
        assert [token for token, _ in got.top] == [token for token, _ in expected.top]
        assert [value for _, value in got.top] == pytest.approx([value for _, value in expected.top])


def test_draws_follow_the_probabilities():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).repeat(4000, 1)
    for kind in ({}, {"top_k": 4}):
        drawn = draw_rows(logits, [how(seed, **kind) for seed in range(4000)])
        shares = np.bincount([each.token for each in drawn], minlength=4) / 4000
        assert shares == pytest.approx(logits[0].softmax(-1).numpy(), abs=0.03)


def test_the_largest_random_number_there_is_still_draws_what_the_filter_kept(monkeypatch):
    # Given a number so close to 1 that rounding leaves some rows' sums below it
    monkeypatch.setattr(device_sampling, "uniform", lambda how: 1 - 2**-53)
    logits = torch.from_numpy(np.random.default_rng(2).normal(0, 3, (500, 400)).astype(np.float32))
    drawn = draw_rows(logits, [how(seed, top_k=5) for seed in range(500)])
    assert [each.token for each in drawn] == logits.topk(5).indices[:, 4].tolist()
