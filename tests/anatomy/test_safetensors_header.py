"""A safetensors header is read as the library reads it, and whatever cannot be right is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from labsupport.anatomy import safetensors_header
from labsupport.anatomy.model_file_error import ModelFileError


def write(path: Path, entries: Any, data: bytes = b"", *, header_bytes: int | None = None) -> Path:
    raw = json.dumps(entries).encode()
    length = len(raw) if header_bytes is None else header_bytes
    path.write_bytes(length.to_bytes(8, "little") + raw + data)
    return path


def entry(start: int, end: int, *, shape: tuple[int, ...] = (2,), dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def test_a_file_of_the_library_is_read_whole(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(4, dtype=np.int8)}
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})

    header = safetensors_header.read(tmp_path / "x.safetensors")

    assert header.metadata == {"format": "pt"}
    assert header.parameters == 10
    assert header.weight_bytes == 28
    raw = (tmp_path / "x.safetensors").read_bytes()
    for tensor in header.tensors:
        assert tensor.shape == arrays[tensor.name].shape
        assert raw[tensor.offset : tensor.offset + tensor.nbytes] == arrays[tensor.name].tobytes()


def test_a_scalar_and_an_empty_tensor_are_allowed(tmp_path: Path) -> None:
    entries = {"one": entry(0, 2, shape=()), "none": entry(2, 2, shape=(0, 3))}
    header = safetensors_header.read(write(tmp_path / "x.safetensors", entries, bytes(2)))
    assert header.parameters == 1


@pytest.mark.parametrize(
    ("entries", "data_bytes", "said"),
    [
        ({"a": entry(0, 4)}, 3, "truncated"),
        ({"a": entry(0, 4)}, 5, "belong to nothing"),
        ({"a": entry(0, 4), "b": entry(2, 6)}, 6, "overlaps"),
        ({"a": entry(0, 4), "b": entry(6, 10)}, 10, "gap"),
        ({"a": entry(0, 2)}, 2, "needs 4 bytes"),
        ({"a": entry(4, 0)}, 4, "claims bytes"),
        ({"a": entry(-4, 0)}, 4, "lacks"),
        ({"a": entry(0, 4, dtype="F3")}, 4, "unknown dtype"),
        ({"a": {"dtype": "F16"}}, 4, "lacks"),
        ({"a": [1, 2]}, 4, "lacks"),
        ({"a": entry(0, 4, shape=("x",))}, 4, "lacks"),  # type: ignore[arg-type]
        ([1], 0, "not a JSON object"),
    ],
)
def test_an_impossible_entry_is_refused_by_name(
    tmp_path: Path, entries: Any, data_bytes: int, said: str
) -> None:
    path = write(tmp_path / "x.safetensors", entries, bytes(data_bytes))
    with pytest.raises(ModelFileError, match=said):
        safetensors_header.read(path)


@pytest.mark.parametrize("header_bytes", [0, 1, 10_000, 2**63, 2**64 - 1])
def test_an_absurd_header_length_is_refused_without_reading_it(tmp_path: Path, header_bytes: int) -> None:
    path = write(tmp_path / "x.safetensors", {"a": entry(0, 4)}, bytes(4), header_bytes=header_bytes)
    with pytest.raises(ModelFileError, match="header claims"):
        safetensors_header.read(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones((3, 3), dtype=np.float32), "b": np.ones(2, dtype=np.float16)}, path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            safetensors_header.read(path)


@pytest.mark.parametrize("raw", [b"{]", b"\xff\xfe", b"[" * 50_000, b'{"a": 1, "a": 2}'])
def test_a_header_that_is_no_json_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    with pytest.raises(ModelFileError, match="JSON"):
        safetensors_header.read(path)
