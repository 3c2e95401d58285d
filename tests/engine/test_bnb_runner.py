"""The bnb runner on real checkpoints: `generate`'s greedy text for each request, whatever runs beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_checkpoint
import tokenizers
import torch
from tiny_checkpoint import END
from transformers import BitsAndBytesConfig
from transformers_own import generated, reference

from labsupport import models
from labsupport.anatomy.formats import format_named
from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import SamplingParams
from labsupport.engine.offline import OfflineEngine
from labsupport.engine.plan import Copy, Draw, Free, Plan, Row, Share
from labsupport.engine.runners.bnb import BnbRunner
from labsupport.engine.runners.bnb.cuda_graphs import DecodeGraphs, batch_sizes, length_size
from labsupport.engine.runners.bnb.vocabulary import Vocabulary
from labsupport.errors import LabsupportError

PROMPTS = [
    list(text.encode())
    for text in ("a", "hello there", "x" * 70, "The KV cache grows", "12345" * 9, "é🙂", "zz top", "the end")
]
LENGTHS = [30, 5, 17, 44, 9, 38, 1, 26]


def config(checkpoint: Path, **settings: Any) -> EngineConfig:
    levers = {"engine": "bnb", "quantization": "fp32", "threads": 1, "slots": 4, "prefix_slots": 0}
    return EngineConfig(model=str(checkpoint), **(levers | settings)).checked()


def greedy(max_tokens: int, **others: Any) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0, **others)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint.write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def runner(llama: Path):
    runner = BnbRunner(config(llama, prefix_slots=2))
    yield runner
    runner.close()


def plan(*rows: Row, operations: tuple = ()) -> Plan:
    return Plan(operations=operations, rows=rows, sequences=())


def row(slot: int, start: int, tokens: list[int]) -> Row:
    return Row(slot, start, tokens, Draw(greedy(1, logprobs=5), 0, 0))


@pytest.mark.parametrize(
    ("write", "shape"),
    [
        (tiny_checkpoint.write_llama, {}),
        (tiny_checkpoint.write_llama, {"tie_word_embeddings": True}),
        (tiny_checkpoint.write_llama, {"num_key_value_heads": 4}),
        (tiny_checkpoint.write_llama, {"num_key_value_heads": 1, "head_dim": 32}),
        (tiny_checkpoint.write_qwen3, {}),
    ],
    ids=["grouped queries", "tied embeddings", "a KV head for each", "one KV head, longer heads", "qwen3"],
)
def test_requests_of_unequal_length_that_join_and_leave_say_what_generate_says(write, shape, tmp_path):
    # Given eight requests for four slots, prompts longer than a step, and answers of unequal length
    checkpoint = write(tmp_path, **shape)
    model = reference(checkpoint)
    with OfflineEngine(config(checkpoint, step_tokens=16)) as engine:
        # When they run together
        texts = engine.generate(PROMPTS, [greedy(length) for length in LENGTHS])
        assert engine.scheduler.check_integrity() == []
    # Then each says what it would say alone in transformers' own loop
    for prompt, length, text in zip(PROMPTS, LENGTHS, texts, strict=True):
        assert text.tokens == generated(model, prompt, length)


def test_the_pocket_model_says_what_generate_says_in_company():
    # Given conversations with the course's own model, which end by themselves or are cut short
    checkpoint = models.checkpoint("pocket")
    tokenizer = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    asked = [
        "What is a KV cache?",
        "How many GB are the weights of a 7B model at 4 bits?",
        "Hello",
        "1 2 3 4 5",
    ]
    prompts = [
        tokenizer.encode(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n").ids for text in asked
    ]
    limits = [24, 7, 40, 15]
    model = reference(checkpoint)
    # When three of them run together, and the fourth when one of them leaves
    with OfflineEngine(config(checkpoint, slots=3, step_tokens=32, context_tokens=256)) as engine:
        texts = engine.generate(prompts, [greedy(limit) for limit in limits])
        assert engine.scheduler.check_integrity() == []
    # Then each answer is transformers' own
    assert [text.tokens for text in texts] == [
        generated(model, prompt, limit) for prompt, limit in zip(prompts, limits, strict=True)
    ]


@pytest.mark.parametrize(
    ("quantization", "how"),
    [
        (
            "nf4",
            BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.float32,
            ),
        ),
        ("int8", BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)),
    ],
    ids=["nf4", "int8"],
)
def test_quantized_it_says_what_transformers_own_quantized_model_says(llama, quantization, how):
    model = reference(llama, quantization_config=how, device_map={"": "cpu"})
    with OfflineEngine(config(llama, quantization=quantization, step_tokens=32)) as engine:
        texts = engine.generate(PROMPTS, [greedy(min(length, 12)) for length in LENGTHS])
        quantized_bytes = engine.runner.weights_bytes
    for prompt, length, text in zip(PROMPTS, LENGTHS, texts, strict=True):
        assert text.tokens == generated(model, prompt, min(length, 12))
    # And the quantization is real: only what is no matrix of a layer is still in fp32
    weights = {name: weight.numel() for name, weight in reference(llama).named_parameters()}
    matrices = sum(count for name, count in weights.items() if "_proj" in name)
    form = format_named({"nf4": "nf4_double"}.get(quantization, quantization))
    expected = 4 * (sum(weights.values()) - matrices) + form.bytes_for(matrices)
    assert quantized_bytes == pytest.approx(expected, rel=0.05)


def test_the_text_is_the_same_alone_and_in_company(llama):
    with OfflineEngine(config(llama)) as engine:
        alone = [engine.generate([prompt], greedy(40))[0] for prompt in PROMPTS[:4]]
        together = engine.generate(PROMPTS[:4], greedy(40))
    assert [text.tokens for text in together] == [text.tokens for text in alone]


def test_a_shared_prefix_changes_nothing_but_the_work(llama):
    shared = [[*b"the very same beginning of a prompt, " * 3, 65 + index] for index in range(6)]
    texts = []
    for prefix_slots in (0, 2):
        with OfflineEngine(config(llama, prefix_slots=prefix_slots, step_tokens=74)) as engine:
            texts.append(engine.generate(shared, greedy(12)))
            assert engine.scheduler.check_integrity() == []
    assert [text.tokens for text in texts[0]] == [text.tokens for text in texts[1]]
    assert [text.cached_tokens for text in texts[0]] == [0] * 6
    assert [text.cached_tokens for text in texts[1]] == [0, *[len(shared[0]) - 1] * 5]


def test_a_seed_gives_the_same_text_alone_and_in_company_and_0_is_a_seed(llama):
    def params(seed):
        return SamplingParams(max_tokens=20, temperature=30, top_k=50, seed=seed, ignore_eos=True)

    with OfflineEngine(config(llama)) as engine:
        alone = engine.generate([PROMPTS[0]], params(0))[0]
        company = engine.generate(PROMPTS[:1] * 4, [params(0), *map(params, range(1, 4))])
        unseeded = engine.generate([PROMPTS[0]] * 2, params(None))
    assert company[0].tokens == alone.tokens
    assert len({text.tokens for text in (alone, company[1], *unseeded)}) == 4


def test_an_answer_ends_with_an_end_token_unless_it_is_ignored(llama):
    with OfflineEngine(config(llama)) as engine:

        def hot(**others):
            return [SamplingParams(max_tokens=60, temperature=90, seed=seed, **others) for seed in range(30)]

        ended = [each for each in engine.generate([[65]] * 30, hot()) if each.finish_reason == "stop"]
        assert ended
        assert all(each.tokens.index(END) == len(each.tokens) - 1 for each in ended)
        assert {len(each.tokens) for each in engine.generate([[65]] * 30, hot(ignore_eos=True))} == {60}


def test_a_step_gives_each_row_the_logits_of_its_own_sequence(runner, llama):
    # Given slots of many lengths, filled in chunks, copied, freed and filled again
    model = reference(llama)
    held = {5: list(b"first in the last slot"), 0: list(b"gone soon"), 3: list(b"another"), 1: list(b"q")}
    runner.step(plan(*(row(slot, 0, tokens) for slot, tokens in held.items())))
    runner.step(plan(operations=(Free(0), Copy(5, 2, 9))))
    held |= {0: list(b"the slot is new"), 2: held[5][:9]}
    runner.step(plan(row(0, 0, held[0])))
    # When they take a step each: some one token, some several
    more = {0: [70], 1: [71, 72, 73], 2: [74], 3: list(b" story"), 5: [75]}
    drawn = runner.step(plan(*(row(slot, len(held[slot]), tokens) for slot, tokens in more.items())))
    # Then the log probabilities are those of the whole sequence in transformers
    for (slot, tokens), got in zip(more.items(), drawn, strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([held[slot] + tokens])).logits[0, -1].double().log_softmax(-1)
        values, best = logprobs.topk(5)
        assert [token for token, _ in got.top] == best.tolist()
        assert [value for _, value in got.top] == pytest.approx(values.tolist(), abs=1e-4)
        assert (got.token, got.logprob) == (best[0], pytest.approx(values[0].item(), abs=1e-4))


@pytest.mark.parametrize(
    "bad",
    [
        plan(row(0, 0, [65] * 129)),
        plan(row(0, 5, [65])),
        plan(row(99, 0, [65])),
        plan(row(-1, 0, [65])),
        plan(row(0, 0, [])),
        plan(row(0, 0, [258])),
        plan(row(0, 0, [-1])),
        plan(row(0, 0, [65]), row(0, 0, [65])),
        plan(operations=(Copy(0, 1, 5),)),
        plan(operations=(Copy(0, 77, 1),)),
        plan(operations=(Share(0, 1, 1),)),
        plan(operations=(Free(77),)),
    ],
)
def test_an_impossible_plan_is_refused_and_harms_nothing(runner, bad):
    with pytest.raises(ValueError, match=r"slot|step|vocabulary|copy"):
        runner.step(bad)
    assert len(runner.step(plan(row(0, 0, [65, 66])))) == 1


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"context_tokens": 512}, "at most 256"),
        ({"kv_cells": 1024, "context_tokens": 128}, "512, or 0"),
    ],
)
def test_a_setting_that_the_model_cannot_have_is_refused_with_what_it_can(llama, settings, complaint):
    with pytest.raises(LabsupportError, match=complaint):
        BnbRunner(config(llama, **settings))


def test_a_checkpoint_that_would_be_computed_wrongly_is_refused(llama, tmp_path):
    whole = json.loads((llama / "config.json").read_text())
    rope = whole["rope_parameters"]
    for number, (changed, complaint) in enumerate(
        [
            ({"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"]}, "the architecture"),
            ({"model_type": "mistral", "sliding_window": 32}, "sliding window"),
            ({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1}, "sliding window"),
            ({"rope_parameters": rope | {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
            ({"num_hidden_layers": 3}, "lacks 9 of the model's tensors"),
        ]
    ):
        folder = shutil.copytree(llama, tmp_path / str(number))
        (folder / "config.json").write_text(json.dumps(whole | changed))
        with pytest.raises(LabsupportError, match=complaint):
            BnbRunner(config(folder))


def test_a_damaged_checkpoint_gives_one_clear_error(llama, tmp_path):
    for name, damage, complaint in (
        ("model.safetensors", lambda content: content[:-100], "transformers cannot load"),
        ("config.json", lambda content: b"{", "transformers cannot load"),
        ("tokenizer.json", lambda content: b"{}", "BPE"),
        ("tokenizer.json", lambda content: content.replace(b'"id":257', b'"id":9999'), "beyond the 258"),
    ):
        folder = shutil.copytree(llama, tmp_path / f"{name}-{complaint}")
        content = "".join((folder / name).read_text().split()).encode() if name == "tokenizer.json" else None
        content = content or (folder / name).read_bytes()
        (folder / name).write_bytes(damage(content))
        with pytest.raises(LabsupportError, match=complaint):
            BnbRunner(config(folder))


def test_tokens_spell_the_same_bytes_as_in_llama_cpp():
    from labsupport.server.tokenizer import Tokenizer

    vocabulary = Tokenizer(models.vocabulary("pocket"))
    ours = Vocabulary(models.checkpoint("pocket"), size=vocabulary.size)
    for token in range(vocabulary.size):
        spelled = b"" if vocabulary.is_control(token) else vocabulary.piece(token)
        assert ours.piece(token) == spelled, token
    assert [vocabulary.encode(vocabulary.eos, add_special=False, parse_special=True)] == [
        [token] for token in ours.end_tokens
    ]


class RunAgain(DecodeGraphs):
    """Decode graphs for a computer without a GPU: a replay runs the step again, into the same buffers."""

    def _record(self, batch: int, length: int) -> Any:
        logits = self._run(batch, length)
        return SimpleNamespace(replay=lambda: logits.copy_(self._run(batch, length))), logits


def test_padded_to_a_recorded_size_a_batch_says_the_same_and_its_padding_leaves_no_trace(tmp_path):
    # Given a context of several recorded lengths, and a batch that shrinks through every recorded size
    checkpoint = tiny_checkpoint.write_llama(tmp_path, max_position_embeddings=512)
    model = reference(checkpoint)
    prompts = [*PROMPTS[:4], [97] * 250]
    lengths = [30, 5, 17, 44, 20]
    with OfflineEngine(config(checkpoint, slots=5, prefix_slots=1)) as engine:
        runner = engine.runner
        with torch.inference_mode():
            runner._graphs = RunAgain(runner._forward, runner._cache, largest_batch=5, dtype=torch.float32)
        # When decode steps run through the recorded sizes, recorded while others are in mid-answer
        texts = engine.generate(prompts, [greedy(length) for length in lengths])
        assert {batch for batch, _ in runner._graphs.sizes} == {1, 2, 4, 5}
        assert {length for _, length in runner._graphs.sizes} == {256, 512}
    # Then the answers are those of `generate`
    for prompt, length, text in zip(prompts, lengths, texts, strict=True):
        assert text.tokens == generated(model, prompt, length)


def test_recorded_sizes_are_few_and_enough():
    assert batch_sizes(1) == (1,)
    assert batch_sizes(16) == (1, 2, 4, 8, 16)
    assert batch_sizes(20) == (1, 2, 4, 8, 16, 20)
    assert [length_size(tokens, 2056) for tokens in (1, 256, 257, 1024, 1025, 2050)] == [
        256, 256, 512, 1024, 2048, 2056,
    ]  # fmt: skip
    assert length_size(9, 72) == 72
