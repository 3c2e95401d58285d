"""What bitsandbytes stores is as large as the arithmetic says: compared with models that it quantized."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from labsupport.anatomy import ModelShape, model_sheet, shape_of
from labsupport.anatomy.arithmetic import weight_bytes
from labsupport.anatomy.bnb_weights import QUANTIZATIONS, bnb_weight_bytes
from labsupport.engine.runners.bnb.loading import load, stored_bytes
from labsupport.errors import LabsupportError
from tests.engine import tiny_checkpoint


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_model_takes_the_bytes_that_the_arithmetic_says(tmp_path: Path, quantization: str) -> None:
    # Given matrices of other heights than widths, so that rows and columns cannot be mixed up
    checkpoint = tiny_checkpoint.write_llama(
        tmp_path, hidden_size=512, intermediate_size=1280, num_attention_heads=8, head_dim=64
    )
    # When it is loaded where the rest is computed in fp32
    model = load(checkpoint, quantization, torch.device("cpu"))
    # Then only what hangs on no matrix is not counted: rotary frequencies, one code book for each NF4 matrix
    expected = bnb_weight_bytes(shape_of(checkpoint), quantization, rest="f32")
    assert stored_bytes(model) == pytest.approx(expected, rel=0.002)


def test_four_bits_of_an_8b_model_are_more_than_half_of_eight() -> None:
    shape = model_sheet("llama-3.1-8b").shape
    int8, nf4 = (bnb_weight_bytes(shape, one) for one in ("int8", "nf4"))
    assert bnb_weight_bytes(shape, "bf16") == weight_bytes(shape, "bf16")
    assert int8 / 2 < nf4 < int8


def test_what_is_not_known_is_refused() -> None:
    shape = model_sheet("llama-3.1-8b").shape
    with pytest.raises(LabsupportError, match="fp32, bf16, int8, nf4"):
        bnb_weight_bytes(shape, "q4_k_m")
    biased = ModelShape(
        layers=1, hidden=64, heads=2, kv_heads=2, head_dim=32, ffn=64, vocabulary=10, qkv_bias=True
    )
    with pytest.raises(LabsupportError, match="without biases"):
        bnb_weight_bytes(biased, "nf4")
