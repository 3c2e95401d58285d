"""The references of lab 01, against programs that nobody here wrote, and the sense of its mistakes."""

from __future__ import annotations

import json
import random
import struct

import pytest

from labsupport import anatomy
from labsupport.grading.exercises import parameter_count, quantized_bytes, release_review, safetensors_header
from labsupport.grading.inside.plain import PACKAGE, File
from labsupport.grading.judge import same
from labsupport.grading.labs import exercises
from labsupport.grading.replies import drawn
from tests.grading.notebooks import SOLVED

CONFIGS = [
    case.arguments[0] for seed in range(3) for case in parameter_count.draw(random.Random(f"oracle {seed}"))
]


def test_counting_agrees_with_what_transformers_allocates():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    for config in CONFIGS:
        given = {"num_key_value_heads": config["num_attention_heads"], "tie_word_embeddings": False} | config
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(**given))
        assert parameter_count.solve(config) == sum(parameter.numel() for parameter in model.parameters())


def test_counting_agrees_with_the_course_s_own_arithmetic():
    for config in CONFIGS:
        if config.get("attention_bias") or config.get("mlp_bias"):
            continue
        shape = anatomy.ModelShape.from_config({"model_type": "llama", **config})
        assert parameter_count.solve(config) == anatomy.parameters(shape).total


@pytest.mark.parametrize("seed", range(5))
def test_reading_a_header_agrees_with_the_safetensors_library(seed):
    from safetensors import deserialize

    for case in safetensors_header.draw(random.Random(seed)):
        (file,) = case.arguments
        ours = safetensors_header.solve(file)
        theirs = dict(deserialize(file.content))
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            start, size = ours[name]["start"], ours[name]["bytes"]
            assert ours[name]["shape"] == list(tensor["shape"])
            assert file.content[start : start + size] == bytes(tensor["data"])


@pytest.mark.parametrize(
    ("kind", "bits", "offset_bits"), [("Q4_0", 4, 0), ("Q4_1", 4, 16), ("Q5_0", 5, 0), ("Q8_0", 8, 0)]
)
def test_quantized_bytes_agree_with_llama_cpp_s_block_formats(kind, bits, offset_bits):
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    weights, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    shape = [7, 40 * weights]
    assert quantized_bytes.solve(shape, bits, weights, 16, offset_bits) == 7 * 40 * block_bytes


def test_the_pocket_model_is_what_its_config_promises():
    answer = release_review.solve(release_review.POCKET, release_review.POCKET_FACTS)
    shape = anatomy.shape_of(PACKAGE / release_review.POCKET.path)
    assert answer == {
        "openness": "open source",
        "parameters": anatomy.parameters(shape).total,
        "as_configured": True,
    }


def test_the_examples_on_the_page_are_right():
    functions: dict = {"json": json}
    for cell in SOLVED["cells"]:
        if cell["id"] in exercises():
            exec("".join(cell["source"]), functions)
    text = b'{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'.ljust(64)
    file = File("example", struct.pack("<Q", 64) + text + bytes(24))
    shown = {"w": {"dtype": "F32", "shape": [2, 3], "start": 72, "bytes": 24}}
    config = {"vocab_size": 10, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1}
    assert safetensors_header.solve(file) == shown
    assert functions["count_parameters"]({**config, "num_attention_heads": 2}) == 228
    assert functions["quantized_bytes"]([2, 64], 4, 32, 16, 0) == 72
    assert functions["quantized_bytes"]([64], 4, 32, 16, 0) == 128


@pytest.mark.parametrize("exercise", exercises().values(), ids=lambda exercise: exercise.name)
def test_every_mistake_shows_and_can_be_told_from_every_other(exercise):
    for seed in range(10):
        cases = drawn(exercise, seed)
        answers = {"right": [exercise.solve(*case.arguments) for case in cases]}
        for mistake in exercise.mistakes:
            answers[mistake.name] = [exercise.solve(*case.arguments, **mistake.switches) for case in cases]
        names = list(answers)
        for place, one in enumerate(names):
            for other in names[place + 1 :]:
                assert not same(answers[one], answers[other]), f"seed {seed}: {one!r} looks like {other!r}"


@pytest.mark.parametrize("exercise", exercises().values(), ids=lambda exercise: exercise.name)
def test_other_seeds_ask_about_other_inputs(exercise):
    first, second = drawn(exercise, 1), drawn(exercise, 2)
    assert [case.arguments for case in first] != [case.arguments for case in second]
    assert drawn(exercise, 1) == first
