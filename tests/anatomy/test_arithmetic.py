"""Bytes and FLOPs equal worked examples and what torch itself counts."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig

from labsupport.anatomy import (
    ModelShape,
    fit,
    flops_per_token,
    hardware,
    kv_bytes_per_token,
    model_sheet,
    parameters,
    shape_of,
    weight_bytes,
)
from labsupport.anatomy.arithmetic import attainable_flops_per_second, decode_seconds_lower_bound
from labsupport.anatomy.formats import format_named
from labsupport.anatomy.spec_sheets import devices_of_tier, names
from labsupport.errors import LabsupportError

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "head_dim": 32,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    options = {key: value for key, value in CONFIG.items() if key != "model_type"}
    return AutoModelForCausalLM.from_config(LlamaConfig(**options), attn_implementation="eager").eval()


def test_kv_bytes_equal_what_a_cache_of_transformers_holds(model: torch.nn.Module) -> None:
    tokens = torch.arange(7)[None]
    with torch.no_grad():
        cache = model(tokens, past_key_values=DynamicCache(), use_cache=True).past_key_values
    held = sum(
        layer.keys.numel() * layer.keys.element_size() + layer.values.numel() * layer.values.element_size()
        for layer in cache.layers
    )
    assert held == 7 * kv_bytes_per_token(ModelShape.from_config(CONFIG), "f32")


def test_flops_equal_what_torch_counts(model: torch.nn.Module) -> None:
    tokens = torch.arange(9)[None]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(tokens, use_cache=False)
    # Eager attention computes all 9 × 9 scores and masks afterwards: every token attends to 9.
    counted = counter.get_total_flops()
    rotary = 9 * 32  # transformers makes its angles by a small matrix product, outside the formula
    assert abs(counted - 9 * flops_per_token(ModelShape.from_config(CONFIG), context_tokens=9)) <= rotary


def test_worked_examples_of_the_published_shapes() -> None:
    llama = model_sheet("llama-3.1-8b").shape
    assert parameters(llama).total == 8_030_261_248
    assert weight_bytes(llama, "bf16") == 2 * 8_030_261_248
    assert kv_bytes_per_token(llama) == 128 * 1024
    assert kv_bytes_per_token(llama, "q8_0") == 128 * 1024 * 34 // 64
    assert llama.attention == "GQA"
    # Its heads are longer than hidden / heads: a formula that divides would answer half of this.
    assert kv_bytes_per_token(model_sheet("qwen3-0.6b").shape) == 28 * 2 * 8 * 128 * 2


def test_latent_attention_caches_one_latent_and_one_rotary_key_per_layer() -> None:
    shape = ModelShape(
        layers=60, hidden=5120, heads=128, kv_heads=128, head_dim=128, ffn=12288, vocabulary=102400,
        kv_lora_rank=512, rope_head_dim=64, value_head_dim=128,
    )  # fmt: skip
    assert kv_bytes_per_token(shape) == 60 * (512 + 64) * 2
    assert shape.attention == "MLA"


@pytest.mark.parametrize(
    ("form", "bits"),
    [("bf16", 16), ("q8_0", 8.5), ("q4_k", 4.5), ("q2_k", 2.625), ("q6_k", 6.5625), ("nf4", 4.5)],
)
def test_bits_per_weight_include_the_scales(form: str, bits: float) -> None:
    assert format_named(form).bits_per_weight == bits


def test_double_quantization_saves_what_its_paper_says() -> None:
    # QLoRA, section 3: from 0.5 to 0.127 bits per parameter.
    assert format_named("nf4_double").bits_per_weight == pytest.approx(4.127, abs=5e-4)
    assert format_named("nf4_double").bytes_for(4096 * 4096) == 4096 * 4096 * 33 // 64 + 4 * 1024


def test_fit_says_how_long_a_context_still_fits() -> None:
    shape = model_sheet("llama-3.1-8b").shape
    gib = 2**30
    tight = fit(shape, "bf16", memory_bytes=24 * gib, context_tokens=8192, sequences=4, overhead_bytes=gib)
    assert tight.kv_cache == 4 * gib
    assert tight.fits
    assert not fit(
        shape, "bf16", memory_bytes=24 * gib, context_tokens=tight.largest_context_tokens + 1, sequences=4,
        overhead_bytes=gib,
    ).fits  # fmt: skip
    assert not fit(shape, "bf16", memory_bytes=12 * gib, context_tokens=1).fits
    assert fit(shape, "bf16", memory_bytes=12 * gib, context_tokens=1).largest_context_tokens == 0


def test_limits_of_time() -> None:
    assert decode_seconds_lower_bound(bytes_read=10, bandwidth_bytes_per_second=5) == 2
    peak = {"peak_flops_per_second": 100.0, "bandwidth_bytes_per_second": 10.0}
    assert attainable_flops_per_second(flops_per_byte=2, **peak) == 20
    assert attainable_flops_per_second(flops_per_byte=20, **peak) == 100


def test_every_sheet_has_a_source_and_a_day() -> None:
    sheets = [model_sheet(name) for name in names("models")]
    assert len(sheets) >= 5
    for sheet in sheets:
        assert sheet.source.startswith(("https://", "chosen for this course"))
        assert sheet.read.year >= 2026


@pytest.mark.parametrize("name", names("hardware"))
def test_every_figure_of_a_device_is_quoted_from_a_named_publisher_as_of_a_day(name: str) -> None:
    sheet = hardware(name)
    proved = {}
    for one in sheet.evidence:
        assert one.url.startswith("https://")
        assert one.publisher
        assert one.as_of <= one.read <= date.today()
        assert len(one.quotation.split()) <= 25
        for figure, (quoted, factor) in one.figures.items():
            assert re.search(rf"(?<![\d.,]){re.escape(quoted)}(?![\d.,]*\d)", one.quotation), (figure, quoted)
            proved[figure] = float(quoted.replace(",", "")) * factor
    stated = {
        field: value for field, value in vars(sheet).items() if field.endswith(("_bytes", "_per_second"))
    }
    assert proved == {figure: value for figure, value in stated.items() if value is not None}


def test_every_tier_has_devices_from_a_slow_to_a_fast_one() -> None:
    for tier in ("cpu", "apple", "gpu"):
        slow, *_, fast = devices_of_tier(tier)
        assert slow.bandwidth_bytes_per_second < fast.bandwidth_bytes_per_second
    assert sum(len(devices_of_tier(tier)) for tier in ("cpu", "apple", "gpu")) == len(names("hardware"))
    with pytest.raises(LabsupportError, match=r"no 'h1000'[\s\S]*h100-sxm"):
        hardware("h1000")


def test_shape_is_the_same_from_each_kind_of_file(tmp_path: Path, model: torch.nn.Module) -> None:
    model.save_pretrained(tmp_path)
    expected = ModelShape.from_config(CONFIG)
    for path in (tmp_path, tmp_path / "config.json", tmp_path / "model.safetensors"):
        assert parameters(shape_of(path)) == parameters(expected)
    (tmp_path / "config.json").rename(tmp_path / "elsewhere")
    with pytest.raises(LabsupportError, match="does not say how long a head is"):
        shape_of(tmp_path / "model.safetensors")


def test_a_config_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(LabsupportError, match="not valid JSON"):
        shape_of(tmp_path)
