"""The limit that a GPU's figures stand beside: worked out by hand, and never too high to be one."""

from __future__ import annotations

import pytest

from benchmarks.cuda.limit import bytes_per_step, limit_tokens_per_second, mean_context, weights_bytes
from benchmarks.cuda.rates import medians, rates
from labsupport.anatomy import ModelShape, model_sheet
from labsupport.errors import LabsupportError

SHAPE = model_sheet("llama-3.1-8b").shape
WEIGHTS, EMBEDDING, KV_PER_TOKEN = 8_030_261_248, 128_256 * 4096, 131_072


def test_a_step_reads_all_weights_but_the_embedding_and_the_context_of_each_sequence() -> None:
    one = bytes_per_step(SHAPE, "bf16", sequences=1, context_tokens=192)
    many = bytes_per_step(SHAPE, "bf16", sequences=32, context_tokens=192)

    assert one == 2 * (WEIGHTS - EMBEDDING) + 2 * 4096 + 192 * KV_PER_TOKEN
    assert many - one == 31 * (2 * 4096 + 192 * KV_PER_TOKEN)


def test_an_embedding_that_is_the_output_matrix_too_is_read_whole() -> None:
    tied = ModelShape(
        layers=1, hidden=64, heads=2, kv_heads=2, head_dim=32, ffn=64, vocabulary=1000, tied_embeddings=True
    )

    assert bytes_per_step(tied, "bf16", sequences=1, context_tokens=0) == weights_bytes(tied, "bf16")


@pytest.mark.parametrize("quantization", ["int8", "nf4", "q4_k_m"])
def test_fewer_bits_raise_the_limit_but_by_less_than_their_number_says(quantization: str) -> None:
    bits = {"int8": 8, "nf4": 4, "q4_k_m": 4}[quantization]
    common = {"sequences": 1, "context_tokens": 192, "bandwidth_bytes_per_second": 1e12}

    times = limit_tokens_per_second(SHAPE, quantization, **common) / limit_tokens_per_second(
        SHAPE, "bf16", **common
    )

    assert 1 < times < 16 / bits


def test_the_limit_is_the_bytes_over_the_bandwidth() -> None:
    least = bytes_per_step(SHAPE, "bf16", sequences=8, context_tokens=100)

    limit = limit_tokens_per_second(
        SHAPE, "bf16", sequences=8, context_tokens=100, bandwidth_bytes_per_second=2 * least
    )

    assert limit == pytest.approx(16)


def test_the_context_is_the_mean_over_the_steps_after_the_first_token() -> None:
    attended = [128 + step for step in range(1, 100)]

    assert mean_context(128, 100) == sum(attended) / len(attended)


def test_the_rate_of_decoding_counts_only_while_all_sequences_decode() -> None:
    # Given one whose prompt took longer, and one that ended sooner, a token every 0.1 s each
    times = [[1.0 + 0.1 * step for step in range(21)], [2.0 + 0.1 * step for step in range(21)]]

    found = rates(0.0, times)

    assert found["decode_tokens_per_second"] == pytest.approx(20)  # from 2 s to 3 s, where the first ends
    assert found["whole_run_tokens_per_second"] == pytest.approx(42 / 4)


def test_where_never_all_decode_there_is_no_rate_of_decoding() -> None:
    assert set(rates(0.0, [[1.0, 2.0], [3.0, 4.0]])) == {"whole_run_tokens_per_second"}
    assert set(medians([{"a": 1.0, "b": 2.0}, {"a": 3.0}])) == {"a"}
    with pytest.raises(LabsupportError, match="no token"):
        rates(0.0, [[1.0], []])
