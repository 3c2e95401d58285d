"""Settings and the choice of a runner: what is refused, and why which device is taken."""

from __future__ import annotations

import pytest

from labsupport.engine.config import ConfigRefused, EngineConfig
from labsupport.engine.runners.threads import thread_count
from labsupport.engine.selection import select


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"slots": 0}, "slots is 0"),
        ({"slots": 250}, "prefix_slots 16"),
        ({"step_tokens": 8}, "step_tokens is 8 with 16 slots"),
        ({"context_tokens": 2048, "kv_cells": 1024}, "kv_cells is 1024"),
        ({"kv_type": "q2_0"}, "kv_type is 'q2_0'"),
        ({"engine": "vllm"}, "engine is 'vllm'"),
        ({"admission": "hope"}, "admission is 'hope'"),
        ({"threads": -1}, "threads is -1"),
        ({"model": "/nowhere.gguf"}, "no model file at /nowhere.gguf"),
    ],
)
def test_an_impossible_setting_is_refused_with_what_was_given(tiny_model, settings, complaint):
    with pytest.raises(ConfigRefused, match=complaint):
        EngineConfig(**({"model": str(tiny_model)} | settings)).checked()


@pytest.mark.parametrize(
    ("machine", "device", "reason"),
    [
        ({}, "cpu", "no GPU was found"),
        ({"has_cuda": True}, "cpu", "this llama.cpp has no CUDA"),
        ({"has_cuda": True, "llama_offloads": True}, "cuda", "NVIDIA GPU"),
        ({"has_cuda": True, "llama_offloads": True, "n_gpu_layers": 0}, "cpu", "n_gpu_layers is 0"),
        ({"is_metal": True, "llama_offloads": True}, "metal", "Metal"),
        ({"is_metal": True}, "cpu", "no GPU was found that it can use"),
    ],
)
def test_auto_takes_the_best_that_the_machine_has_and_says_why(machine, device, reason):
    facts = {"has_cuda": False, "is_metal": False, "llama_offloads": False, "n_gpu_layers": -1} | machine
    chosen = select("auto", **facts)
    assert (chosen.engine, chosen.device) == ("llama", device)
    assert chosen.reason.startswith("auto: ")
    assert reason in chosen.reason


def test_threads_never_exceed_the_cores_that_may_be_used():
    import os

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert 1 <= thread_count(0) <= min(8, usable)
    assert thread_count(10_000) == usable
    assert thread_count(1) == 1
