"""Read and check the header of a GGUF file: its metadata and where each tensor lies.

llama.cpp maps a GGUF file into memory and trusts much of it; a truncated file can end a whole process. So a
file is read here first. Right means: every length fits inside the file, every tensor's type is known, its
rows are whole blocks, its bytes are inside the file and no two tensors share a byte. What this cannot see
is a changed byte inside a tensor; that takes a checksum.

Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian throughout:
magic, version, number of tensors, number of metadata pairs, the pairs, the tensor entries, padding up to
`general.alignment`, then the data.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from labsupport.anatomy.formats import GGML_FORMATS, Format
from labsupport.anatomy.model_file_error import ModelFileError

MAGIC = b"GGUF"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor: `shape` in GGUF's order (the length of a row first), `offset` and `nbytes` in the file."""

    name: str
    shape: tuple[int, ...]
    format: Format
    offset: int
    nbytes: int

    @property
    def parameters(self) -> int:
        """How many weights it holds."""
        return prod(self.shape)


@dataclass(frozen=True)
class GGUFHeader:
    """Everything before the data of a GGUF file, checked against the file's length."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: tuple[GGUFTensor, ...]
    data_offset: int
    file_bytes: int

    @property
    def architecture(self) -> str:
        """`llama`, `qwen3`, …: the first word of the keys that describe the shape."""
        return str(self.metadata["general.architecture"])

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors, without header and padding."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        """Weights in all tensors."""
        return sum(tensor.parameters for tensor in self.tensors)


def read(path: str | Path) -> GGUFHeader:
    """Read the header of the GGUF file at `path`; raise `ModelFileError` if the file cannot be right."""
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(path, "there is no such file.")
    file_bytes = path.stat().st_size
    if file_bytes < 24:
        raise ModelFileError(path, f"{file_bytes} bytes are too few for a GGUF header (24 at least).")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _Reader(path, content).header()


class _Reader:
    """A cursor over the file that refuses to step past its end."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path = path
        self.content = content
        self.size = len(content)
        self.position = 0

    def fail(self, problem: str) -> ModelFileError:
        return ModelFileError(self.path, problem)

    def scalar(self, code: str) -> Any:
        try:
            (value,) = struct.unpack_from("<" + code, self.content, self.position)
        except struct.error:
            raise self.fail(f"the header breaks off at byte {self.position:,}: it is truncated.") from None
        self.position += struct.calcsize("<" + code)
        return value

    def count(self, what: str, smallest_bytes: int) -> int:
        """A number of things that follow, each at least `smallest_bytes` long, so that the file bounds it."""
        value = int(self.scalar("Q"))
        if value * smallest_bytes > self.size - self.position:
            raise self.fail(
                f"the header promises {value:,} {what} at byte {self.position:,}, more than the "
                f"{self.size:,} bytes of the file can hold: it is truncated or corrupt."
            )
        return value

    def string(self) -> str:
        length = self.count("bytes of text", 1)
        raw = self.content[self.position : self.position + length]
        self.position += length
        # A vocabulary may hold bytes that are no UTF-8; they must survive, not fail the file.
        return raw.decode("utf-8", errors="surrogateescape")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array()
        if kind not in _SCALARS:
            raise self.fail(f"metadata type {kind} at byte {self.position:,} is unknown.")
        return self.scalar(_SCALARS[kind])

    def array(self) -> tuple[Any, ...]:
        kind = self.scalar("I")
        if kind == _STRING:
            return tuple(self.string() for _ in range(self.count("strings", 8)))
        if kind not in _SCALARS:
            raise self.fail(f"an array of metadata type {kind} at byte {self.position:,} cannot be read.")
        width = struct.calcsize("<" + _SCALARS[kind])
        length = self.count("array elements", width)
        values = struct.unpack_from(f"<{length}{_SCALARS[kind]}", self.content, self.position)
        self.position += length * width
        return values

    def header(self) -> GGUFHeader:
        if self.content[:4] != MAGIC:
            raise self.fail(f"it begins with {self.content[:4]!r}, not with {MAGIC!r}: this is no GGUF file.")
        self.position = 4
        version = self.scalar("I")
        if version not in (2, 3):
            raise self.fail(f"GGUF version {version} cannot be read; versions 2 and 3 (little-endian) can.")
        tensor_count = self.count("tensors", 24)
        pair_count = self.count("metadata pairs", 13)
        metadata: dict[str, Any] = {}
        for _ in range(pair_count):
            key = self.string()
            if key in metadata:
                raise self.fail(f"the metadata key {key!r} stands in it twice.")
            metadata[key] = self.value(self.scalar("I"))
        if "general.architecture" not in metadata:
            raise self.fail("the metadata does not name the architecture (general.architecture).")
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 8 or alignment & (alignment - 1):
            raise self.fail(f"general.alignment is {alignment!r}, not a power of two of at least 8.")
        entries = [self.tensor_entry() for _ in range(tensor_count)]
        data_offset = -(-self.position // alignment) * alignment
        tensors = tuple(self.placed(entry, data_offset, alignment) for entry in entries)
        self.refuse_overlaps(tensors)
        return GGUFHeader(self.path, version, metadata, tensors, data_offset, self.size)

    def tensor_entry(self) -> tuple[str, tuple[int, ...], Format, int]:
        name = self.string()
        dimensions = self.scalar("I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise self.fail(f"tensor {name!r} has {dimensions} dimensions, not 1 to {_MAX_DIMENSIONS}.")
        shape = tuple(int(self.scalar("Q")) for _ in range(dimensions))
        kind = self.scalar("I")
        if kind not in GGML_FORMATS:
            raise self.fail(f"tensor {name!r} has the unknown type {kind}.")
        block = GGML_FORMATS[kind].block_weights
        if min(shape) < 1 or shape[0] % block:
            raise self.fail(
                f"tensor {name!r} of shape {shape} cannot be stored in {GGML_FORMATS[kind].name}: "
                f"rows must be whole blocks of {block} weights."
            )
        return name, shape, GGML_FORMATS[kind], int(self.scalar("Q"))

    def placed(
        self, entry: tuple[str, tuple[int, ...], Format, int], data_offset: int, alignment: int
    ) -> GGUFTensor:
        name, shape, form, relative = entry
        nbytes = prod(shape) // form.block_weights * form.block_bytes
        offset = data_offset + relative
        if relative % alignment:
            raise self.fail(f"tensor {name!r} starts at {relative:,}, which is no multiple of {alignment}.")
        if offset + nbytes > self.size:
            raise self.fail(
                f"tensor {name!r} needs bytes {offset:,} to {offset + nbytes:,}, "
                f"but the file ends at {self.size:,}: it is truncated or corrupt."
            )
        return GGUFTensor(name, shape, form, offset, nbytes)

    def refuse_overlaps(self, tensors: tuple[GGUFTensor, ...]) -> None:
        names = set()
        end, before = 0, ""
        for tensor in sorted(tensors, key=lambda each: each.offset):
            if tensor.name in names:
                raise self.fail(f"tensor {tensor.name!r} stands in it twice.")
            names.add(tensor.name)
            if tensor.offset < end:
                raise self.fail(f"tensors {before!r} and {tensor.name!r} overlap.")
            end, before = tensor.offset + tensor.nbytes, tensor.name
