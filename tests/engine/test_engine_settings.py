"""Settings and the choice of a runner: what is refused, and why which device is taken."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from labsupport import models
from labsupport.engine.config import ConfigRefused, EngineConfig
from labsupport.engine.runners.threads import thread_count
from labsupport.engine.selection import QuantizationRefused, bnb_selection, choose, select


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
        ({"engine": "bnb"}, "cannot read the file"),
        ({"quantization": "nf4"}, "cannot read the file"),
        ({"quantization": "q4_k_m"}, "quantization is 'q4_k_m'"),
    ],
)
def test_an_impossible_setting_is_refused_with_what_was_given(tiny_model, settings, complaint):
    with pytest.raises(ConfigRefused, match=complaint):
        EngineConfig(**({"model": str(tiny_model)} | settings)).checked()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"engine": "llama"}, "cannot read the checkpoint"),
        ({"kv_type": "q8_0"}, "kv_type is 'q8_0' with the bnb engine"),
        ({"n_gpu_layers": 3}, "n_gpu_layers is 3 with the bnb engine"),
        ({"slots": 0}, "slots is 0"),
    ],
)
def test_a_setting_that_does_not_go_with_a_checkpoint_is_refused(settings, complaint):
    config = EngineConfig(model=str(models.checkpoint("pocket")))
    assert config.checked().is_checkpoint
    with pytest.raises(ConfigRefused, match=complaint):
        msgspec.structs.replace(config, **settings).checked()


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


GPU_FOR_TORCH = {"has_cuda": True, "torch_has_cuda": True}


@pytest.mark.parametrize(
    ("wanted", "quantization", "machine", "chosen"),
    [
        ("auto", "", {}, ("llama", "q4_k_m")),
        ("auto", "", GPU_FOR_TORCH, ("bnb", "nf4")),
        ("auto", "", GPU_FOR_TORCH | {"llama_offloads": True}, ("llama", "q4_k_m")),
        ("auto", "", GPU_FOR_TORCH | {"torch_has_cuda": False}, ("llama", "q4_k_m")),
        ("auto", "", GPU_FOR_TORCH | {"n_gpu_layers": 0}, ("llama", "q4_k_m")),
        ("auto", "", GPU_FOR_TORCH | {"has_checkpoint": False}, ("llama", "q4_k_m")),
        ("auto", "q8_0", GPU_FOR_TORCH, ("llama", "q8_0")),
        ("auto", "int8", {}, ("bnb", "int8")),
        ("auto", "bf16", {}, ("llama", "bf16")),
        ("auto", "bf16", GPU_FOR_TORCH, ("bnb", "bf16")),
        ("bnb", "", {}, ("bnb", "nf4")),
        ("bnb", "fp32", {}, ("bnb", "fp32")),
        ("llama", "", GPU_FOR_TORCH, ("llama", "q4_k_m")),
    ],
)
def test_the_engine_and_its_quantization_suit_the_machine_and_what_was_asked(
    wanted, quantization, machine, chosen
):
    facts = {
        "has_checkpoint": True,
        "has_cuda": False,
        "torch_has_cuda": False,
        "llama_offloads": False,
        "n_gpu_layers": -1,
    }
    assert choose(wanted, quantization, **(facts | machine)) == chosen


@pytest.mark.parametrize(
    ("wanted", "quantization", "has_checkpoint", "complaint"),
    [
        ("llama", "nf4", True, r"llama engine does not serve nf4(.|\n)*--engine bnb serves nf4"),
        ("bnb", "q4_k_m", True, r"bnb engine does not serve q4_k_m(.|\n)*--engine llama serves q4_k_m"),
        ("auto", "q9", True, r"no quantization 'q9'(.|\n)*q4_k_m(.|\n)*nf4"),
        ("bnb", "", False, "reads a Hugging Face checkpoint"),
        ("auto", "nf4", False, "reads a Hugging Face checkpoint"),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_would(
    wanted, quantization, has_checkpoint, complaint
):
    with pytest.raises(QuantizationRefused, match=complaint):
        choose(
            wanted,
            quantization,
            has_checkpoint=has_checkpoint,
            has_cuda=False,
            torch_has_cuda=False,
            llama_offloads=False,
            n_gpu_layers=-1,
        )


@pytest.mark.parametrize(
    ("wanted", "facts", "device", "reason"),
    [
        ("auto", {"has_cuda": True}, "cuda", "auto: bitsandbytes nf4 on the NVIDIA GPU, because llama.cpp"),
        ("bnb", {"has_cuda": True}, "cuda", "bnb was asked for: bitsandbytes nf4 on the NVIDIA GPU"),
        ("bnb", {"has_cuda": True, "n_gpu_layers": 0}, "cpu", "because n_gpu_layers is 0"),
        ("bnb", {}, "cpu", "on the CPU, which is slow, for torch finds no GPU"),
    ],
)
def test_bnb_takes_the_gpu_that_torch_finds_and_says_why(wanted, facts, device, reason):
    chosen = bnb_selection(wanted, "", **({"has_cuda": False, "n_gpu_layers": -1} | facts))
    assert (chosen.engine, chosen.device, chosen.quantization) == ("bnb", device, "nf4")
    assert reason in chosen.reason


def test_whether_torch_has_cuda_is_known_without_importing_it():
    program = (
        "import sys; from labsupport.engine.selection import torch_has_cuda; known = torch_has_cuda(); "
        "assert 'torch' not in sys.modules; import torch; assert known == (torch.version.cuda is not None)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_threads_never_exceed_the_cores_that_may_be_used():
    import os

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert 1 <= thread_count(0) <= min(8, usable)
    assert thread_count(10_000) == usable
    assert thread_count(1) == 1
