"""Random blocks of 4- and 6-bit weights, as they lie in a GGUF file: a model that nobody quantized.

A real file is quantized from 16 bits, which for eight billion weights takes a file of 16 GB and minutes of
all cores. For timing, random bits in the blocks' own layout do as well, with scales that give the weights
about the deviation asked for and all finite.

Layouts: `block_q4_K` and `block_q6_K` in ggml's `ggml-common.h`. A weight is d·scale·q − dmin·minimum in the
first (q of 4 bits, scale and minimum of 6) and d·scale·(q − 32) in the second (q of 6 bits, scale of 8).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labsupport.errors import LabsupportError

_BLOCK_WEIGHTS = 256
_Q4_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])
_Q6_K = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "u1", 16), ("d", "<f2")])
BLOCK_FORMATS = {"q4_k": _Q4_K, "q6_k": _Q6_K}

_Q4_K_MEAN = (16 - 1) / 2
"""dmin is this many times d, so that weights scatter around 0."""
_Q4_K_DEVIATION, _Q6_K_DEVIATION = 256.0, 1366.0
"""The deviation of the weights for d = 1, when all other bits are random."""


def random_blocks(
    random: np.random.Generator, form: str, weights: int, *, deviation: float
) -> np.ndarray[Any, Any]:
    """Blocks of `weights` random weights in `form` (`q4_k` or `q6_k`), with about that standard deviation.

    Raises `LabsupportError` for another format, and if they are no whole number of blocks.
    """
    if form not in BLOCK_FORMATS:
        raise LabsupportError(
            f"Random blocks of {form} cannot be made.",
            allowed=", ".join(BLOCK_FORMATS),
            remedy=f"Take a shape whose matrices are a multiple of {_BLOCK_WEIGHTS} wide.",
        )
    if weights % _BLOCK_WEIGHTS:
        raise LabsupportError(
            f"{weights} weights are no whole number of {form} blocks",
            allowed=f"a multiple of {_BLOCK_WEIGHTS}",
        )
    layout = BLOCK_FORMATS[form]
    blocks = np.frombuffer(random.bytes(weights // _BLOCK_WEIGHTS * layout.itemsize), dtype=layout).copy()
    if form == "q4_k":
        blocks["d"] = deviation / _Q4_K_DEVIATION
        blocks["dmin"] = _Q4_K_MEAN * deviation / _Q4_K_DEVIATION
    else:
        blocks["d"] = deviation / _Q6_K_DEVIATION
    return blocks
