"""A bias and penalties change the logits as OpenAI, vLLM and Hugging Face define it, and in no other way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import SamplingParams
from labsupport.engine.offline import OfflineEngine
from labsupport.engine.penalties import are_wanted, changed
from labsupport.engine.plan import Draw
from labsupport.engine.sampling import draw
from labsupport.engine.validation import RequestRefused

LOGITS = np.array([2.0, -1.0, 0.5, 3.0, 0.0, -4.0], dtype=np.float32)
PROMPT, ANSWER = [5, 0, 0], [3, 1, 3]


def how(**params) -> Draw:
    return Draw(SamplingParams(max_tokens=1, **params), 0, len(ANSWER), PROMPT + ANSWER)


def changes(**params) -> list[float]:
    """What is added to each logit."""
    return (changed(LOGITS, how(**params)) - LOGITS).tolist()


def test_frequency_and_presence_count_what_was_generated_and_not_the_prompt():
    assert changes(frequency_penalty=0.5) == [0, -0.5, 0, -1, 0, 0]
    assert changes(presence_penalty=0.5) == [0, -0.5, 0, -0.5, 0, 0]
    assert changes(frequency_penalty=-1, presence_penalty=2) == [0, -1, 0, 0, 0, 0]


def test_repetition_counts_the_prompt_too_and_each_token_once_as_hugging_face_does():
    tokens = torch.tensor([PROMPT + ANSWER])
    for penalty in (0.5, 1.3, 4.0):
        expected = RepetitionPenaltyLogitsProcessor(penalty)(tokens, torch.from_numpy(LOGITS.copy())[None])
        assert changed(LOGITS, how(repetition_penalty=penalty)) == pytest.approx(expected[0].numpy())


def test_a_bias_is_added_before_the_penalties():
    assert changes(logit_bias=((4, 100.0), (0, -7.5))) == [-7.5, 0, 0, 0, 100, 0]
    both = changed(LOGITS, how(logit_bias=((1, 5.0),), repetition_penalty=2.0, presence_penalty=1.0))
    assert both[1] == pytest.approx((-1 + 5) / 2 - 1)


def test_they_decide_what_is_drawn_and_the_log_probabilities_stay_the_models_own():
    own = draw(LOGITS, how(temperature=0, logprobs=2))
    biased = draw(LOGITS, how(temperature=0, logprobs=2, logit_bias=((5, 100.0),)))
    sampled = draw(LOGITS, how(logit_bias=((5, 100.0),)))
    assert (own.token, biased.token, sampled.token) == (3, 5, 5)
    assert biased.top == own.top
    assert biased.logprob == pytest.approx(own.logprob - 7, rel=1e-5)


def test_what_is_switched_off_changes_nothing_and_asks_for_no_work():
    off = SamplingParams(
        max_tokens=1, frequency_penalty=0, presence_penalty=0, repetition_penalty=1, logit_bias=()
    )
    assert not are_wanted(off)
    assert changed(LOGITS, Draw(off, 0, 2, [1, 2, 3])).tolist() == LOGITS.tolist()


def test_an_engine_draws_by_them(tiny_model):
    with OfflineEngine(EngineConfig(threads=1, model=str(tiny_model))) as engine:

        def say(**params):
            wanted = SamplingParams(max_tokens=60, temperature=0, ignore_eos=True, **params)
            return engine.generate([b"abc"], wanted)[0].tokens

        own = say()
        assert own[0] not in say(logit_bias=((own[0], -100.0),))
        assert set(say(logit_bias=((ord("c"), 100.0),))) == {ord("c")}
        assert len(set(own)) < len(set(say(frequency_penalty=2.0)))
        assert len(set(say(repetition_penalty=100.0, presence_penalty=2.0))) == 60


def test_a_preempted_sequence_with_penalties_says_the_same(reciting_model):
    # Given a model whose logits hang on the last token alone, so only the sampler could tell the difference
    params = SamplingParams(
        max_tokens=60,
        temperature=40,
        seed=1,
        ignore_eos=True,
        frequency_penalty=2.0,
        presence_penalty=1.0,
        repetition_penalty=1.5,
        logit_bias=((ord("a"), 50.0),),
    )
    prompts = [bytes([place]) * 20 for place in range(65, 75)]

    def run(**levers):
        config = EngineConfig(
            threads=1, model=str(reciting_model), context_tokens=128, prefix_slots=0, **levers
        )
        with OfflineEngine(config) as engine:
            return [
                each.tokens for each in engine.generate(prompts, params)
            ], engine.scheduler.counters.preemptions

    roomy, cramped = run(), run(kv_cells=256, admission="preempt")
    assert roomy[1] == 0 < cramped[1]
    assert roomy[0] == cramped[0]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"frequency_penalty": 2.5}, "frequency_penalty is 2.5"),
        ({"presence_penalty": float("nan")}, "presence_penalty is nan"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty"),
        ({"logit_bias": ((999, 1.0),)}, "token 999"),
        ({"logit_bias": ((-1, 1.0),)}, "token -1"),
        ({"logit_bias": ((1, 1.0), (1, 2.0))}, "twice"),
        ({"logit_bias": ((1, float("inf")),)}, "finite"),
        ({"logit_bias": ((1, 100.5),)}, "100.5"),
        ({"logit_bias": tuple((token, 1.0) for token in range(301))}, "301 tokens"),
    ],
)
def test_an_impossible_penalty_is_refused_before_anything_runs(reciting_model, params, says):
    with (
        OfflineEngine(EngineConfig(threads=1, model=str(reciting_model))) as engine,
        pytest.raises(RequestRefused, match=says),
    ):
        engine.generate([[65]], SamplingParams(max_tokens=2, **params))
