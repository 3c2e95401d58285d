"""The llama runner on a real NVIDIA GPU, where llama.cpp was built with CUDA; and what `auto` takes there."""

from __future__ import annotations

from pathlib import Path

import pytest

from labsupport import models
from labsupport.engine.config import EngineConfig
from labsupport.engine.loading import load
from labsupport.engine.messages import SamplingParams
from labsupport.engine.model_files import prepare
from labsupport.engine.offline import OfflineEngine
from labsupport.engine.selection import torch_has_cuda
from tests.engine import tiny_gguf

pytestmark = pytest.mark.gpu

CIRCLE = tiny_gguf.RECITED.encode()
LENGTHS = [40, 5, 17, 60, 9, 38, 1]


def offloads() -> bool:
    import llama_cpp

    return bool(llama_cpp.llama_supports_gpu_offload())


def test_auto_takes_the_engine_that_can_use_the_gpu() -> None:
    files = prepare("pocket")
    if offloads() or not torch_has_cuda():
        assert (files.engine, files.quantization) == ("llama", "q4_k_m")
    else:
        assert (files.engine, files.quantization) == ("bnb", "nf4")
        assert files.weights == models.checkpoint("pocket")


def test_requests_that_join_and_leave_recite_what_they_began(tmp_path: Path) -> None:
    # Given a model on the GPU whose next byte follows from the last one alone, and fewer slots than requests
    file = tiny_gguf.write_reciting(tmp_path / "reciting.gguf", tiny_gguf.RECITED)
    config = EngineConfig(model=str(file), slots=3, prefix_slots=2, n_gpu_layers=-1).checked()
    runner, chosen = load(config)
    assert chosen.device == ("cuda" if offloads() else "cpu"), chosen.reason
    # When each begins elsewhere in the circle, and asks for another number of tokens
    prompts = [list((CIRCLE * 9)[: place + 1 + 20 * (place % 3)]) for place in range(len(LENGTHS))]
    params = [SamplingParams(max_tokens=length, temperature=0, ignore_eos=True) for length in LENGTHS]
    with OfflineEngine(config, runner) as engine:
        answers = engine.generate(prompts, params)
        assert engine.scheduler.check_integrity() == []
    # Then each goes on from where it was
    for prompt, length, answer in zip(prompts, LENGTHS, answers, strict=True):
        assert answer.tokens == tuple((CIRCLE * 20)[len(prompt) : len(prompt) + length])
