"""What llama.cpp's quantization recipes really store: a name such as Q4_K_M stands for a mixture of formats.

Some matrices lose more than others by rounding, so a recipe gives them more bits: the output matrix, half
of the value projections and of the MLP's down projections. That is why "Q2_K" is over three bits per weight
on a small model. The rules are those of `src/llama-quant.cpp` in llama.cpp for dense Llama-like models; the
tests compare the result with files that llama.cpp wrote.
"""

from __future__ import annotations

from labsupport.anatomy.arithmetic import parameters
from labsupport.anatomy.formats import format_named
from labsupport.anatomy.model_shape import ModelShape
from labsupport.errors import LabsupportError

RECIPES = ("f16", "bf16", "q8_0", "q4_k_m", "q2_k")

# Rows that are no whole number of 256-weight blocks are stored in a format of 32-weight blocks instead.
_NARROW = {"q2_k": "q4_0", "q3_k": "q4_0", "q4_k": "q5_0", "q6_k": "q8_0"}


def gguf_weight_bytes(shape: ModelShape, recipe: str) -> int:
    """Bytes of all tensors in a GGUF file quantized by that recipe (header and padding come on top)."""
    if recipe not in RECIPES:
        raise LabsupportError(f"There is no recipe {recipe!r}.", allowed=", ".join(RECIPES))
    if shape.experts or shape.kv_lora_rank:
        raise LabsupportError(f"The recipes are known for dense models; {shape.architecture} is not one.")
    s = shape
    queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
    total = _matrix(_output_format(recipe), s.hidden, s.vocabulary)
    if not s.tied_embeddings:
        total += _matrix({"q4_k_m": "q4_k"}.get(recipe, recipe), s.hidden, s.vocabulary)
    for layer in range(s.layers):
        plain, value, output, down = _layer_formats(recipe, s, layer)
        total += _matrix(plain, s.hidden, queries + keys + 2 * s.ffn)
        total += _matrix(value, s.hidden, keys)
        total += _matrix(output, queries, s.hidden)
        total += _matrix(down, s.ffn, s.hidden)
    return total + format_named("f32").bytes_for(_vectors(s))


def tensor_format(shape: ModelShape, recipe: str, tensor: str) -> str:
    """Name of the format in which a file of that recipe stores a tensor, such as `blk.0.attn_v.weight`.

    Only the tensors of a dense Llama are known. Raises `LabsupportError` for another name.
    """
    s, part = shape, tensor.split(".")[-2]
    if part.endswith("_norm"):
        return "f32"
    if part == "output" or (part == "token_embd" and s.tied_embeddings):
        return _fitting(_output_format(recipe), s.hidden)
    if part == "token_embd":
        return _fitting({"q4_k_m": "q4_k"}.get(recipe, recipe), s.hidden)
    layer = int(tensor.split(".")[1])
    plain, value, output, down = _layer_formats(recipe, s, layer)
    if part in ("attn_q", "attn_k", "ffn_gate", "ffn_up"):
        return _fitting(plain, s.hidden)
    special = {
        "attn_v": (value, s.hidden),
        "attn_output": (output, s.heads * s.head_dim),
        "ffn_down": (down, s.ffn),
    }
    if part not in special:
        raise LabsupportError(f"The recipes say nothing about the tensor {tensor!r}.")
    return _fitting(*special[part])


def bits_per_weight(shape: ModelShape, recipe: str) -> float:
    """The average over all weights, norms included."""
    return 8 * gguf_weight_bytes(shape, recipe) / parameters(shape).total


def _output_format(recipe: str) -> str:
    return "q6_k" if recipe in ("q4_k_m", "q2_k") else recipe


def _layer_formats(recipe: str, s: ModelShape, layer: int) -> tuple[str, str, str, str]:
    """Formats of a layer's query, key, gate and up matrices; its value; its output; its down projection."""
    if recipe == "q4_k_m":
        careful = "q6_k" if _more_bits(layer, s.layers) else "q4_k"
        is_70b = s.layers == 80 and s.heads != s.kv_heads  # llama.cpp knows it by these two
        value = "q5_k" if is_70b and careful == "q4_k" else careful
        return "q4_k", value, "q4_k", careful
    if recipe == "q2_k":
        return "q2_k", "q4_k" if s.heads // s.kv_heads >= 4 else "q3_k", "q3_k", "q3_k"
    return recipe, recipe, recipe, recipe


def _more_bits(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _matrix(name: str, columns: int, rows: int) -> int:
    return format_named(_fitting(name, columns)).bytes_for(columns) * rows


def _fitting(name: str, columns: int) -> str:
    """The format itself, or the one that stands in for it where rows are no whole number of its blocks."""
    if columns % format_named(name).block_weights:
        name = _NARROW.get(name, "f16")
    return "f16" if columns % format_named(name).block_weights else name


def _vectors(s: ModelShape) -> int:
    biases = s.layers * (
        s.qkv_bias * (s.heads + 2 * s.kv_heads) * s.head_dim
        + s.output_bias * s.hidden
        + s.mlp_bias * (2 * s.ffn + s.hidden)
    )
    return parameters(s).norms + biases
