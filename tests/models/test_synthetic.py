"""A synthetic model is a model of random, finite, normal weights at exactly the shape asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from labsupport.anatomy import ModelShape, model_sheet, parameters, shape_of
from labsupport.errors import LabsupportError
from labsupport.models.catalogue import entries
from labsupport.models.quantize import quantize
from labsupport.models.synthetic import write_synthetic
from tests.models.llama import logits, opened

TINY = ModelShape(
    layers=2, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=512, vocabulary=1000, context=512
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "tiny.gguf"
    write_synthetic(TINY, path)
    return path


def test_the_file_has_the_shape_asked(tiny: Path) -> None:
    assert shape_of(tiny) == TINY


def test_weights_are_normal_and_finite_and_tensors_differ(tiny: Path) -> None:
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tiny).tensors}
    means = []
    for name, tensor in tensors.items():
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64).ravel()
        assert np.isfinite(values).all()
        if "norm" in name:
            assert (values == 1).all()
            continue
        means.append(values.mean())
        assert values.std() == pytest.approx(0.02, rel=0.02)
        assert abs(values.mean()) < 5 * 0.02 / len(values) ** 0.5
        kurtosis = ((values - values.mean()) ** 4).mean() / values.var() ** 2
        assert kurtosis == pytest.approx(3, abs=0.15)
    assert len(set(means)) == len(means)


def test_the_same_seed_gives_the_same_file_and_another_does_not(tiny: Path, tmp_path: Path) -> None:
    write_synthetic(TINY, tmp_path / "again.gguf")
    write_synthetic(TINY, tmp_path / "other.gguf", seed=1)
    assert (tmp_path / "again.gguf").read_bytes() == tiny.read_bytes()
    assert (tmp_path / "other.gguf").read_bytes() != tiny.read_bytes()


@pytest.mark.parametrize("quant", ["q8_0", "q4_k_m", "q2_k"])
def test_it_runs_when_quantized_and_its_logits_are_finite(tiny: Path, tmp_path: Path, quant: str) -> None:
    quantize(tiny, tmp_path / "q.gguf", quant)
    with opened(tmp_path / "q.gguf") as model:
        text = "Grüße, 12 <|im_end|>"
        tokens = model.tokenize(text.encode(), add_bos=False, special=True)
        assert len(tokens) == len(text.removesuffix("<|im_end|>").encode()) + 1  # one per byte, one special
        assert model.detokenize(tokens, special=True).decode() == text
        assert np.isfinite(logits(model, tokens)).all()
        assert model.detokenize([999]) == b" 999"


def test_made_in_q4_k_m_at_once_it_is_as_if_llama_cpp_had_quantized_it(tiny: Path, tmp_path: Path) -> None:
    quantize(tiny, tmp_path / "quantized.gguf", "q4_k_m")
    write_synthetic(TINY, tmp_path / "random.gguf", form="q4_k_m")
    theirs, ours = (
        {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / name).tensors}
        for name in ("quantized.gguf", "random.gguf")
    )
    assert {name: one.tensor_type for name, one in ours.items()} == {
        name: one.tensor_type for name, one in theirs.items()
    }
    assert {one.tensor_type.name for one in ours.values()} == {"F32", "Q4_K", "Q6_K"}
    for name, tensor in ours.items():
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
        assert values.shape == gguf.quants.dequantize(theirs[name].data, theirs[name].tensor_type).shape
        assert np.isfinite(values).all()
        if "norm" not in name:
            assert values.std() == pytest.approx(0.02, rel=0.05)
            assert abs(values.mean()) < 0.001
    with opened(tmp_path / "random.gguf") as model:
        assert np.isfinite(logits(model, [1, 2, 3])).all()


def test_every_synthetic_entry_has_the_shape_it_promises() -> None:
    shapes = {name: model_sheet(entry.sheet).shape for name, entry in entries().items() if entry.sheet}
    assert set(shapes) == {"synthetic-0.3b", "synthetic-1b", "synthetic-8b"}
    small = shapes["synthetic-0.3b"]
    sizes = (small.hidden, small.layers, small.heads, small.kv_heads, small.ffn, small.vocabulary)
    assert sizes == (1024, 20, 16, 8, 2816, 32000)
    assert parameters(shapes["synthetic-8b"]).total == 8_030_261_248


def test_a_shape_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    for shape in (replace(TINY, vocabulary=100), replace(TINY, architecture="qwen3")):
        with pytest.raises(LabsupportError, match="No synthetic model can be made"):
            write_synthetic(shape, tmp_path / "x.gguf")
    with pytest.raises(LabsupportError, match="multiple of 256 wide"):
        write_synthetic(replace(TINY, ffn=320), tmp_path / "x.gguf", form="q4_k_m")
