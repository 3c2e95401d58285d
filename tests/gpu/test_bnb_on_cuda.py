"""The bnb runner on a real NVIDIA GPU: its CUDA graphs, its memory, and what crosses to the host."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labsupport.anatomy import shape_of
from labsupport.anatomy.arithmetic import kv_bytes_per_token, weight_bytes
from labsupport.anatomy.formats import format_named
from labsupport.engine import sampling
from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import SamplingParams
from labsupport.engine.offline import OfflineEngine
from labsupport.engine.plan import Draw, Plan, Row
from labsupport.engine.runners.bnb import BnbRunner
from labsupport.engine.runners.bnb.device_sampling import draw_rows
from tests.engine import tiny_checkpoint
from tests.engine.transformers_own import generated, reference

pytestmark = pytest.mark.gpu

PROMPTS = [list(f"prompt number {index}, {'x' * 9 * index}".encode()) for index in range(11)]
LENGTHS = [40, 5, 17, 60, 9, 38, 1, 26, 33, 12, 50]


def config(checkpoint: Path, quantization: str, **settings: Any) -> EngineConfig:
    levers = {"engine": "bnb", "slots": 6, "prefix_slots": 2, "step_tokens": 32}
    return EngineConfig(model=str(checkpoint), quantization=quantization, **(levers | settings)).checked()


def greedy(max_tokens: int, **others: Any) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0, **others)


def row(slot: int, start: int, tokens: list[int], **params: Any) -> Row:
    return Row(slot, start, tokens, Draw(greedy(1, **params), 0, 0))


def plan(*rows: Row) -> Plan:
    return Plan(operations=(), rows=rows, sequences=())


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint.write_llama(
        tmp_path_factory.mktemp("llama"), hidden_size=256, head_dim=64, max_position_embeddings=1024
    )


def test_in_fp32_requests_that_join_and_leave_say_what_generate_says_through_graphs(llama):
    model = reference(llama, device_map={"": "cuda:0"})
    prompts = [*PROMPTS, [97] * 400]
    lengths = [*LENGTHS, 130]
    with OfflineEngine(config(llama, "fp32")) as engine:
        texts = engine.generate(prompts, [greedy(length) for length in lengths])
        assert engine.scheduler.check_integrity() == []
        # Graphs of every batch, recorded at the start, and of longer contexts, recorded in between
        assert {batch for batch, _ in engine.runner._graphs.sizes} == {1, 2, 4, 6}
        assert {length for _, length in engine.runner._graphs.sizes} >= {256, 512, 1024}
    for prompt, length, text in zip(prompts, lengths, texts, strict=True):
        assert text.tokens == generated(model, prompt, length)


@pytest.mark.parametrize("quantization", ["fp32", "bf16", "nf4"])
def test_a_graph_gives_the_logits_of_the_step_without_it(llama, quantization):
    # Given two runners, one of which has its graphs taken away
    recorded, plain = (BnbRunner(config(llama, quantization)) for _ in range(2))
    assert recorded._graphs is not None
    plain._graphs = None
    for runner in (recorded, plain):
        runner.step(plan(*(row(slot, 0, PROMPTS[slot][:6]) for slot in range(5))))
    # When five sequences, padded to six, take the same tokens for a while
    for index in range(20):
        step = plan(*(row(slot, 6 + index, [65 + index + slot], logprobs=8) for slot in range(5)))
        pairs = zip(recorded.step(step), plain.step(step), strict=True)
        # Then the log probabilities agree as far as the number format goes
        for with_graph, without in pairs:
            likeliest = dict(without.top)
            shared = [token for token, _ in with_graph.top if token in likeliest]
            assert len(shared) >= 6
            differences = [abs(dict(with_graph.top)[token] - likeliest[token]) for token in shared]
            assert max(differences) < (1e-3 if quantization == "fp32" else 0.3)


@pytest.mark.parametrize("quantization", ["bf16", "nf4", "int8"])
def test_text_is_the_same_with_the_same_company_and_every_slot_is_given_back(llama, quantization):
    with OfflineEngine(config(llama, quantization, prefix_slots=0)) as engine:
        params = [greedy(length, ignore_eos=True) for length in LENGTHS]
        first, second = (engine.generate(PROMPTS, params) for _ in range(2))
        assert [len(text.tokens) for text in first] == LENGTHS
        assert [text.tokens for text in first] == [text.tokens for text in second]
        assert engine.scheduler.check_integrity() == []


def test_a_batch_drawn_on_the_gpu_is_the_batch_of_the_definition():
    random = np.random.default_rng(0)
    kinds = [
        {},
        {"top_k": 9},
        {"top_p": 0.9},
        {"min_p": 0.1},
        {"temperature": 0},
        {"top_p": 0.99, "top_k": 50},
    ]
    draws = [
        Draw(SamplingParams(max_tokens=1, **kind), seed, seed % 5) for seed in range(40) for kind in kinds
    ]
    logits = random.normal(0, 3, (len(draws), 3000)).astype(np.float32)
    drawn = draw_rows(torch.from_numpy(logits).cuda(), draws)
    assert [each.token for each in drawn] == [
        sampling.draw(row, how).token for row, how in zip(logits, draws, strict=True)
    ]


def test_of_a_greedy_decode_step_one_copy_comes_to_the_host(llama):
    runner = BnbRunner(config(llama, "bf16"))
    runner.step(plan(*(row(slot, 0, [65, 66, 67]) for slot in range(4))))
    step = plan(*(row(slot, 3, [68]) for slot in range(4)))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        runner.step(step)
        torch.cuda.synchronize()
    copies = [event.name for event in profile.events() if "DtoH" in event.name]
    assert len(copies) == 1  # the token ids


def test_attention_is_not_left_to_cudnn_which_plans_anew_for_every_length(llama):
    runner = BnbRunner(config(llama, "bf16"))
    step = plan(*(row(slot, 0, PROMPTS[slot][: 9 + slot]) for slot in range(4)))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        runner.step(step)
    used = {event.name for event in profile.events() if "scaled_dot_product" in event.name}
    assert not [name for name in used if "cudnn" in name]
    assert [name for name in used if "efficient" in name]


@pytest.mark.parametrize("quantization", ["bf16", "nf4", "int8"])
def test_weights_and_cache_take_what_the_anatomy_says(tmp_path, quantization):
    # Given a model of some hundred million weights
    checkpoint = tiny_checkpoint.write_llama(
        tmp_path,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=4,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=2048,
    )
    before = held_bytes()
    runner = BnbRunner(config(checkpoint, quantization, context_tokens=2040))
    shape = shape_of(checkpoint)
    matrices = sum(p.numel() for name, p in reference(checkpoint).named_parameters() if "_proj" in name)
    form = format_named({"nf4": "nf4_double"}.get(quantization, quantization))
    expected_weights = weight_bytes(shape, "bf16") - 2 * matrices + form.bytes_for(matrices)
    expected_kv = 8 * 2048 * kv_bytes_per_token(shape, "bf16")
    assert runner.weights_bytes == pytest.approx(expected_weights, rel=0.03)
    assert runner.kv_bytes == expected_kv
    runner._graphs = None
    assert held_bytes() - before == pytest.approx(expected_weights + expected_kv, rel=0.03)
    runner.close()


def held_bytes() -> int:
    """What tensors hold on the GPU, without what cuBLAS and what earlier tests have not let go of yet."""
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()
