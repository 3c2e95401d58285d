"""Read and check the header of a safetensors file: which tensors it holds, of what shape, at which bytes.

The format is small enough to read by hand (https://huggingface.co/docs/safetensors): eight bytes give the
length of the header as a little-endian integer; the header is JSON, `{"name": {"dtype", "shape",
"data_offsets"}}`; the rest is data, and offsets count from its first byte. Right means: the header fits in
the file, each tensor's bytes are as many as its shape and dtype need, lie inside the data, overlap no other,
and leave no gap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from labsupport.anatomy.model_file_error import ModelFileError

BITS_PER_DTYPE = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8,
    "U64": 64, "U32": 32, "U16": 16, "U8": 8,
    "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself


@dataclass(frozen=True)
class SafetensorsTensor:
    """One tensor: `shape` as PyTorch has it (rows first), `offset` and `nbytes` in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def parameters(self) -> int:
        """How many weights it holds."""
        return prod(self.shape)


@dataclass(frozen=True)
class SafetensorsHeader:
    """Everything before the data of a safetensors file, checked against the file's length."""

    path: Path
    metadata: Mapping[str, str]
    tensors: tuple[SafetensorsTensor, ...]
    data_offset: int
    file_bytes: int

    @property
    def parameters(self) -> int:
        """Weights in all tensors."""
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors, without the header."""
        return sum(tensor.nbytes for tensor in self.tensors)


def read(path: str | Path) -> SafetensorsHeader:
    """Read the header of the safetensors file at `path`; raise `ModelFileError` if it cannot be right."""
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(path, "there is no such file.")
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if file_bytes < 10:
            raise ModelFileError(path, f"{file_bytes} bytes are too few for a safetensors file.")
        if not 2 <= header_bytes <= min(MAX_HEADER_BYTES, file_bytes - 8):
            raise ModelFileError(
                path,
                f"the header claims {header_bytes:,} bytes in a file of {file_bytes:,}: "
                "it is truncated, corrupt, or no safetensors file.",
            )
        raw = file.read(header_bytes)
    try:
        entries = json.loads(raw, object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(path, f"the header is not valid JSON ({error}).") from None
    if not isinstance(entries, dict):
        raise ModelFileError(path, "the header is not a JSON object.")
    metadata = entries.pop("__metadata__", {})
    data_offset = 8 + header_bytes
    tensors = tuple(_tensor(path, name, entry, data_offset, file_bytes) for name, entry in entries.items())
    tensors = tuple(sorted(tensors, key=lambda tensor: tensor.offset))
    _refuse_gaps_and_overlaps(path, tensors, data_offset, file_bytes)
    return SafetensorsHeader(path, metadata, tensors, data_offset, file_bytes)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a name stands in it twice")
    return names


def _tensor(path: Path, name: str, entry: Any, data_offset: int, file_bytes: int) -> SafetensorsTensor:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, start, end))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise ModelFileError(path, f"the entry of tensor {name!r} lacks a dtype, a shape or two offsets.")
    if dtype not in BITS_PER_DTYPE:
        raise ModelFileError(
            path, f"tensor {name!r} has the unknown dtype {dtype!r}.", allowed=", ".join(BITS_PER_DTYPE)
        )
    if end < start or data_offset + end > file_bytes:
        raise ModelFileError(
            path,
            f"tensor {name!r} claims bytes {start:,} to {end:,} of {file_bytes - data_offset:,} of data: "
            "it is truncated or corrupt.",
        )
    needed = prod(shape) * BITS_PER_DTYPE[dtype] // 8
    if end - start != needed:
        raise ModelFileError(
            path, f"tensor {name!r} {dtype} {list(shape)} needs {needed:,} bytes but claims {end - start:,}."
        )
    return SafetensorsTensor(name, dtype, shape, data_offset + start, needed)


def _refuse_gaps_and_overlaps(
    path: Path, tensors: tuple[SafetensorsTensor, ...], data_offset: int, file_bytes: int
) -> None:
    end = data_offset
    for tensor in tensors:
        if tensor.offset != end:
            fault = "overlaps the tensor before it" if tensor.offset < end else "leaves a gap before it"
            raise ModelFileError(path, f"tensor {tensor.name!r} {fault} (byte {tensor.offset:,}).")
        end = tensor.offset + tensor.nbytes
    if end != file_bytes:
        raise ModelFileError(path, f"{file_bytes - end:,} bytes after the last tensor belong to nothing.")
