"""How many bytes a number takes on disk or in memory, format by format.

A block format stores a group of weights together: their small integers plus the scales (and sometimes minima)
that turn them back into real numbers. So its true cost is `block_bytes` per `block_weights`, which is always
more than the number of bits in its name: Q4_K takes 144 bytes per 256 weights, 4.5 bits each.

Sources: ggml's block structures (`ggml/src/ggml-common.h` of llama.cpp), which `tests/anatomy` compares with
the `gguf` package's own table; for NF4, the QLoRA paper (https://arxiv.org/abs/2305.14314, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from labsupport.errors import LabsupportError


@dataclass(frozen=True)
class Format:
    """A storage format: `block_weights` numbers share `block_bytes` bytes; `ggml_id` is its number in GGUF.

    `outer_bytes` per `outer_weights` is what a second level of scales adds (NF4 with double quantization).
    """

    name: str
    block_weights: int
    block_bytes: int
    ggml_id: int | None = None
    outer_weights: int = 1
    outer_bytes: int = 0

    @property
    def bits_per_weight(self) -> float:
        """Bits that one weight costs, scales included."""
        return 8 * (self.block_bytes / self.block_weights + self.outer_bytes / self.outer_weights)

    def bytes_for(self, weights: int) -> int:
        """Bytes for a run of `weights` numbers; the last block is stored whole even when it is part empty."""
        blocks, outer_blocks = -(-weights // self.block_weights), -(-weights // self.outer_weights)
        return blocks * self.block_bytes + outer_blocks * self.outer_bytes


_GGML = (
    # name, weights per block, bytes per block, id in GGUF
    ("f32", 1, 4, 0),
    ("f16", 1, 2, 1),
    ("q4_0", 32, 18, 2),
    ("q4_1", 32, 20, 3),
    ("q5_0", 32, 22, 6),
    ("q5_1", 32, 24, 7),
    ("q8_0", 32, 34, 8),  # 32 int8 + one f16 scale
    ("q2_k", 256, 84, 10),
    ("q3_k", 256, 110, 11),
    ("q4_k", 256, 144, 12),  # 256 × 4 bits + 12 bytes of 6-bit scales and minima + two f16
    ("q5_k", 256, 176, 13),
    ("q6_k", 256, 210, 14),
    ("q8_k", 256, 292, 15),
    ("iq2_xxs", 256, 66, 16),
    ("iq2_xs", 256, 74, 17),
    ("iq3_xxs", 256, 98, 18),
    ("iq1_s", 256, 50, 19),
    ("iq4_nl", 32, 18, 20),
    ("iq3_s", 256, 110, 21),
    ("iq2_s", 256, 82, 22),
    ("iq4_xs", 256, 136, 23),
    ("i8", 1, 1, 24),
    ("i16", 1, 2, 25),
    ("i32", 1, 4, 26),
    ("i64", 1, 8, 27),
    ("f64", 1, 8, 28),
    ("iq1_m", 256, 56, 29),
    ("bf16", 1, 2, 30),
    ("tq1_0", 256, 54, 34),
    ("tq2_0", 256, 66, 35),
    ("mxfp4", 32, 17, 39),
)
_OTHER = (
    Format("fp8", 1, 1),
    Format("int8", 1, 1),
    # NF4 keeps one absmax per 64 weights: an f32 of its own, or, doubly quantized, one byte, and an f32 for
    # every 256 of these.
    Format("nf4", 64, 32 + 4),
    Format("nf4_double", 64, 32 + 1, outer_weights=64 * 256, outer_bytes=4),
)

FORMATS = {name: Format(name, weights, size, number) for name, weights, size, number in _GGML}
FORMATS |= {each.name: each for each in _OTHER}
GGML_FORMATS = {each.ggml_id: each for each in FORMATS.values() if each.ggml_id is not None}


def format_named(name: str) -> Format:
    """The format of that name (`bf16`, `q8_0`, `nf4`, …; capitals do not matter)."""
    try:
        return FORMATS[name.lower()]
    except KeyError:
        raise LabsupportError(f"There is no number format {name!r}.", allowed=", ".join(FORMATS)) from None
