"""The bnb runner on real checkpoints: `generate`'s greedy text for each request, whatever runs beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_checkpoint
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from labsupport import models
from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import SamplingParams
from labsupport.engine.offline import OfflineEngine
from labsupport.engine.plan import Copy, Draw, Free, Plan, Row, Share
from labsupport.engine.runners.bnb import BnbRunner
from labsupport.engine.sequence import Sequence
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


def reference(checkpoint: Path, **how: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint, **({"dtype": torch.float32} | how)).eval()


def generated(model: Any, prompt: list[int], max_tokens: int) -> tuple[int, ...]:
    """The tokens of transformers' own `generate`, greedy, an end token included."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_tokens
        )
    return tuple(whole[0, len(prompt) :].tolist())


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
