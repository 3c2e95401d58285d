"""Answers held to a grammar by the llama runner: JSON that the schema accepts, whatever happens."""

from __future__ import annotations

import json

import jsonschema
import psutil
import pytest

from labsupport.engine.config import EngineConfig
from labsupport.engine.grammars.json_schema import to_grammar
from labsupport.engine.messages import SamplingParams
from labsupport.engine.offline import OfflineEngine
from labsupport.engine.plan import Draw, Plan
from labsupport.engine.runners.llama_grammar import HeldGrammars
from labsupport.engine.runners.llama_vocabulary import LlamaVocabulary
from labsupport.engine.validation import RequestRefused

BOUNDED = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 8},
        "size": {"enum": ["small", 'so-called "large"', 7, None]},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-f]{1,3}\\d?$"}, "maxItems": 2},
        "when": {"type": ["boolean", "null"]},
    },
    "required": ["name", "size"],
    "additionalProperties": False,
}
PROMPTS = [list(f"prompt number {index}".encode()) for index in range(8)]


def follow(schema, **params) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 150, "temperature": 0, "grammar": to_grammar(schema), **params})


@pytest.fixture(scope="module")
def engine(tiny_model):
    with OfflineEngine(EngineConfig(threads=1, model=str(tiny_model))) as engine:
        yield engine


def assert_accepted(completions, schema) -> None:
    """Every answer is whole, is JSON, and satisfies the schema."""
    for each in completions:
        assert each.finish_reason == "stop", each.text
        jsonschema.validate(json.loads(each.text), schema)


@pytest.mark.parametrize("temperature", [0, 1, 30])
def test_a_model_of_random_weights_answers_with_json_that_the_schema_accepts(engine, temperature):
    params = [follow(BOUNDED, temperature=temperature, seed=seed) for seed in range(len(PROMPTS))]
    assert_accepted(engine.generate(PROMPTS, params), BOUNDED)


def test_an_answer_cut_by_its_limit_says_so(engine):
    (cut,) = engine.generate(PROMPTS[:1], follow(BOUNDED, max_tokens=5))
    assert cut.finish_reason == "length"
    assert cut.text.startswith("{")


def test_an_answer_in_a_grammar_changes_nobody_elses(engine):
    free = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True, logprobs=0)
    alone = [engine.generate([prompt], free)[0].tokens for prompt in PROMPTS[:2]]
    mixed = engine.generate(PROMPTS[:4], [free, free, follow(BOUNDED), follow(BOUNDED, seed=3)])
    assert [each.tokens[:8] for each in mixed[:2]] == [tokens[:8] for tokens in alone]
    assert_accepted(mixed[2:], BOUNDED)


def test_log_probabilities_are_the_models_own_under_a_grammar_too(engine):
    (free,) = engine.generate(PROMPTS[:1], SamplingParams(max_tokens=1, temperature=0, logprobs=3))
    (held,) = engine.generate(PROMPTS[:1], follow(BOUNDED, max_tokens=1, logprobs=3))
    assert held.text == "{" != free.text
    assert [token for token, *_ in held.logprobs[0].top] == [token for token, *_ in free.logprobs[0].top]
    assert held.logprobs[0].logprob < free.logprobs[0].logprob


def test_preempted_answers_go_on_where_their_grammar_was(reciting_model):
    # Given a model whose logits hang on the last token alone, so only the sampler could tell the difference
    params = [follow(BOUNDED, temperature=60, seed=seed, max_tokens=90) for seed in range(10)]
    prompts = [bytes([place]) * 20 for place in range(65, 75)]

    def run(**levers):
        config = EngineConfig(
            threads=1, model=str(reciting_model), context_tokens=128, prefix_slots=0, **levers
        )
        with OfflineEngine(config) as engine:
            texts = [each.tokens for each in engine.generate(prompts, params)]
            return texts, engine.scheduler.counters.preemptions

    roomy, cramped = run(), run(kv_cells=256, admission="preempt")
    assert roomy[1] == 0 < cramped[1]
    assert roomy[0] == cramped[0]


def test_an_answer_that_takes_anothers_slot_begins_where_it_is_itself(tiny_model):
    # Given two answers to one grammar, equally long, which took different ways
    params = SamplingParams(max_tokens=4, grammar='root ::= "ab" | "cd"')
    held = HeldGrammars(LlamaVocabulary.of_file(tiny_model))
    one, other = [*PROMPTS[0], ord("a")], [*PROMPTS[1], ord("c")]

    def next_ones(tokens: list[int]) -> str:
        constraint = held.constraint(0, Draw(params, 0, 1, tokens))
        return "".join(letter for letter in "abcd" if constraint.allows(ord(letter)))

    # When they have the same slot by turns, then each goes on its own way
    assert [next_ones(tokens) for tokens in (one, other, one)] == ["b", "d", "b"]
    # And one that was taken back by some tokens, and said others, as well
    assert next_ones([*PROMPTS[0], ord("c")]) == "d"
    held.close()


def test_a_grammar_that_may_not_end_is_refused(engine):
    with pytest.raises(RequestRefused, match="not to end"):
        engine.generate(PROMPTS[:1], follow(BOUNDED, ignore_eos=True))


def test_an_answer_that_has_ended_holds_no_grammar_and_memory_is_flat_over_many(tiny_model):
    def ask(engine: OfflineEngine, first: int, count: int) -> None:
        """Distinct grammars, a few of them at once; the slots stay, for their prefixes."""
        grammars = [
            follow(
                {"type": "array", "items": {"type": "string", "maxLength": length}, "maxItems": 3},
                max_tokens=4,
            )
            for length in range(first, first + count)
        ]
        engine.generate([[65, 66, place % 250] for place in range(count)], grammars)
        engine.runner.step(Plan(operations=(), rows=(), sequences=()))  # at rest, as the worker's loop has it

    with OfflineEngine(EngineConfig(threads=1, model=str(tiny_model), slots=4, prefix_slots=28)) as engine:
        ask(engine, 500, 40)
        assert engine.scheduler.pool.num_cached > 0
        assert vars(engine.runner._grammars)["_held"] == {}
        before = psutil.Process().memory_info().rss
        ask(engine, 540, 200)
        assert psutil.Process().memory_info().rss - before < 16 * 2**20
