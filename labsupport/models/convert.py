"""From a Hugging Face checkpoint (safetensors) to a GGUF file of 16-bit weights.

Matrices keep bf16 or become f16; vectors become f32, as llama.cpp wants them. Tensors are read, checked and
written one at a time, so memory stays at the size of the largest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labsupport.anatomy import ModelShape, safetensors_header
from labsupport.anatomy.model_file_error import ModelFileError
from labsupport.errors import LabsupportError
from labsupport.models.gguf_layout import (
    ARCHITECTURES,
    gguf_name,
    llama3_rope_factors,
    rope_of,
    rope_row_order,
    write_shape,
)
from labsupport.models.gguf_tokenizer import read_json, write_tokenizer

Array = np.ndarray[Any, np.dtype[Any]]
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


@dataclass(frozen=True)
class _Source:
    """One tensor of the checkpoint and the file it is in."""

    tensor: safetensors_header.SafetensorsTensor
    file: Path
    name: str


def convert(checkpoint: Path, target: Path, *, form: str = "bf16") -> None:
    """Write the checkpoint as a GGUF file with matrices in `form` (`bf16` or `f16`).

    Raises `LabsupportError` for an architecture, a tokenizer or a rotary type that cannot be converted, and
    `ModelFileError` for a file that is broken or holds a weight that is not finite.
    """
    import gguf

    config_path = checkpoint / "config.json"
    config = read_json(config_path)
    if not config:
        raise ModelFileError(config_path, "there is no such file: this is no Hugging Face checkpoint.")
    shape = ModelShape.from_config(config)
    if shape.architecture not in ARCHITECTURES:
        raise LabsupportError(
            f"The architecture {shape.architecture!r} cannot be converted.", allowed=", ".join(ARCHITECTURES)
        )
    architecture = ARCHITECTURES[shape.architecture]
    rope = rope_of(config)
    sources = list(_sources(checkpoint, shape))
    writer = gguf.GGUFWriter(target, architecture)
    writer.add_name(checkpoint.name)
    types = gguf.LlamaFileType
    writer.add_file_type(types.MOSTLY_BF16 if form == "bf16" else types.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    write_shape(
        writer,
        shape,
        rope_theta=float(rope["rope_theta"]),
        norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
    )
    write_tokenizer(writer, checkpoint, vocabulary=shape.vocabulary)
    matrix_type = gguf.GGMLQuantizationType.BF16 if form == "bf16" else gguf.GGMLQuantizationType.F16
    factors = llama3_rope_factors(rope, shape.head_dim) if rope["rope_type"] == "llama3" else None
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for source in sources:
        rows = source.tensor.shape
        if len(rows) == 2:
            half = np.dtype(np.float16)  # any two-byte type: the raw type below is what counts
            writer.add_tensor_info(
                source.name, rows, half, 2 * source.tensor.parameters, raw_dtype=matrix_type
            )
        else:
            writer.add_tensor_info(source.name, rows, np.dtype(np.float32), 4 * source.tensor.parameters)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for source in sources:
            writer.write_tensor_data(_weights(source, shape, architecture, form))
    finally:
        writer.close()


def _sources(checkpoint: Path, shape: ModelShape) -> Iterator[_Source]:
    """The tensors to convert; raises if one is missing or has no place in a GGUF."""
    files = sorted(checkpoint.glob("*.safetensors"))
    if not files:
        raise ModelFileError(checkpoint, "it holds no .safetensors file.")
    seen = set()
    for file in files:
        for tensor in safetensors_header.read(file).tensors:
            if tensor.name.endswith("rotary_emb.inv_freq"):  # computed again by llama.cpp
                continue
            if tensor.name == "lm_head.weight" and shape.tied_embeddings:
                continue
            name = gguf_name(tensor.name)
            if name is None or tensor.dtype not in _DTYPES or len(tensor.shape) > 2:
                raise ModelFileError(file, f"tensor {tensor.name!r} ({tensor.dtype}) has no place in a GGUF.")
            seen.add(name)
            yield _Source(tensor, file, name)
    wanted = {"token_embd.weight", "output_norm.weight"} | {
        f"blk.{layer}.{part}.weight"
        for layer in range(shape.layers)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    }
    if missing := sorted(wanted - seen):
        raise ModelFileError(checkpoint, f"{len(missing)} tensors are missing, {missing[0]} first.")


def _weights(source: _Source, shape: ModelShape, architecture: str, form: str) -> Array:
    """One tensor as it stands in the GGUF: rows in llama.cpp's order, in the output's type."""
    tensor = source.tensor
    raw: Array = np.memmap(
        source.file, dtype=_DTYPES[tensor.dtype], mode="r", offset=tensor.offset, shape=tensor.shape
    )
    if architecture == "llama" and ".attn_q." in source.name:
        raw = raw[rope_row_order(shape.heads, shape.head_dim)]
    if architecture == "llama" and ".attn_k." in source.name:
        raw = raw[rope_row_order(shape.kv_heads, shape.head_dim)]
    if tensor.dtype == "BF16":
        if np.any((raw & 0x7F80) == 0x7F80):
            raise ModelFileError(source.file, f"tensor {tensor.name!r} holds a weight that is not finite.")
        if form == "bf16" and raw.ndim == 2:
            return np.ascontiguousarray(raw)
        values = (raw.astype(np.uint32) << 16).view(np.float32)
    else:
        values = raw.astype(np.float32)
    if raw.ndim == 1:
        converted: Array = values
    elif form == "bf16":
        converted = to_bf16(values)
        values = (converted.astype(np.uint32) << 16).view(np.float32)
    else:
        with np.errstate(over="ignore"):
            converted = values.astype(np.float16)
        values = converted
    if not np.isfinite(values).all():
        raise ModelFileError(
            source.file, f"tensor {tensor.name!r} holds a weight that is not finite in {form}."
        )
    return converted


def to_bf16(values: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Finite f32 values rounded to bf16 (nearest, ties to even), as their 16 bits."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
