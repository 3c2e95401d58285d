"""What bitsandbytes really stores: the matrices of the layers in few bits, all the rest in 16.

Embedding, norms and output matrix are left as they are, so a model "in 4 bits" is larger than 4 bits times
its weights. `tests/anatomy` compares with models that bitsandbytes quantized.

Sources: LLM.int8() (https://arxiv.org/abs/2208.07339) keeps one f32 scale for each row of a matrix; NF4 with
double quantization is that of QLoRA (https://arxiv.org/abs/2305.14314, section 3).
"""

from __future__ import annotations

from labsupport.anatomy.arithmetic import parameters
from labsupport.anatomy.formats import format_named
from labsupport.anatomy.model_shape import ModelShape
from labsupport.errors import LabsupportError

_FORMATS = {"fp32": "f32", "bf16": "bf16", "int8": "int8", "nf4": "nf4_double"}
QUANTIZATIONS = tuple(_FORMATS)


def bnb_weight_bytes(shape: ModelShape, quantization: str, *, rest: str = "bf16") -> int:
    """Bytes of all weights and their scales, loaded in `fp32`, `bf16`, `int8` or `nf4`.

    rest: the format of what is not quantized, which is the one that is computed in: bf16 on CUDA.
    """
    if quantization not in _FORMATS:
        raise LabsupportError(
            f"bitsandbytes is not used for {quantization!r} here.", allowed=", ".join(QUANTIZATIONS)
        )
    if shape.experts or shape.kv_lora_rank or shape.qkv_bias or shape.output_bias or shape.mlp_bias:
        raise LabsupportError("The bytes are known for dense models without biases.")
    s, total = shape, parameters(shape).total
    form = format_named(_FORMATS[quantization])
    queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
    matrices = [(queries, s.hidden), (keys, s.hidden), (keys, s.hidden), (s.hidden, queries)]
    matrices += [(s.ffn, s.hidden), (s.ffn, s.hidden), (s.hidden, s.ffn)]
    layer = sum(form.bytes_for(rows * columns) for rows, columns in matrices)
    if quantization == "int8":
        layer += sum(format_named("f32").bytes_for(rows) for rows, _ in matrices)
    quantized = s.layers * sum(rows * columns for rows, columns in matrices)
    kept = form if quantization in ("fp32", "bf16") else format_named(rest)
    return s.layers * layer + kept.bytes_for(total - quantized)
