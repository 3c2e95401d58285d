"""Is this file a whole GGUF? Asked before llama.cpp opens it, which a damaged file can crash.

Right means: a file that is missing, cut short, or not a GGUF is refused with one clear sentence. What is
read is the header alone, so damage inside the weights themselves is only found by their checksum.
Source of the layout: the GGUF specification in ggml's repository, docs/gguf.md.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

from labsupport.errors import LabsupportError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class ModelDamaged(LabsupportError):
    """A model file that is missing, incomplete or not a model."""


def check_gguf(path: Path) -> dict[str, Any]:
    """Return the file's metadata (arrays as their length). Raises ModelDamaged."""
    remedy = "Make or pull it again: `labsupport models path NAME --quant Q` rebuilds what is missing."
    if not path.is_file():
        raise ModelDamaged(f"there is no model file at {path}", remedy=remedy)
    try:
        with path.open("rb") as file:
            return _Header(file, path.stat().st_size).check()
    except (_Cut, UnicodeDecodeError, struct.error) as error:
        raise ModelDamaged(f"{path} is not a whole GGUF file: {error}", remedy=remedy) from error
    except OSError as error:
        raise ModelDamaged(f"{path} cannot be read: {error}", remedy=remedy) from error


class _Cut(Exception):
    pass


class _Header:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def check(self) -> dict[str, Any]:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        if (magic := self._take(4)) != b"GGUF":
            raise _Cut(f"it begins with {magic!r}, not with GGUF")
        if (version := self._number("I")) not in (2, 3):
            raise _Cut(f"its version is {version}; 2 and 3 are known")
        tensor_count, key_count = self._number("Q"), self._number("Q")
        # A name takes at least 8 bytes, so a count that the file has no room for is damage, not a long loop.
        if (tensor_count + key_count) * 8 > self._size or not tensor_count:
            raise _Cut(f"it claims {tensor_count} tensors and {key_count} keys in {self._size} bytes")
        metadata = {self._string(): self._value(self._number("I")) for _ in range(key_count)}
        ends = []
        for _ in range(tensor_count):
            name, dimensions = self._string(), self._number("I")
            if not 1 <= dimensions <= 4:
                raise _Cut(f"tensor {name} has {dimensions} dimensions")
            shape = [self._number("Q") for _ in range(dimensions)]
            kind, offset = self._number("I"), self._number("Q")
            if kind not in GGML_QUANT_SIZES:
                raise _Cut(f"tensor {name} has the unknown type {kind}")
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            if shape[0] % block:
                raise _Cut(f"tensor {name} has rows of {shape[0]}, not a multiple of its type's {block}")
            ends.append(offset + math.prod(shape) // block * block_bytes)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise _Cut(f"its alignment is {alignment}")
        needed = -(-self._file.tell() // alignment) * alignment + max(ends)
        if needed > self._size:
            raise _Cut(f"it has {self._size} bytes where its tensors need {needed}; it was cut short")
        return metadata

    def _take(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            raise _Cut(f"it ends inside its header, after {self._size} bytes")
        return self._file.read(count)

    def _number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self._take(struct.calcsize(f"<{kind}")))[0]

    def _string(self) -> str:
        return self._take(self._number("Q")).decode()

    def _value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._take(self._number("Q")).decode(errors="replace")
        if kind != _ARRAY:
            raise _Cut(f"a key has the unknown type {kind}")
        element, count = self._number("I"), self._number("Q")
        if element in _SCALARS:
            self._take(count * struct.calcsize(f"<{_SCALARS[element]}"))
        else:
            for _ in range(count):
                self._value(element)
        return count
