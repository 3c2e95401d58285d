"""A GGUF header is read as it is, and a file that cannot be right is refused before llama.cpp sees it."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from labsupport.anatomy import gguf_header
from labsupport.anatomy.formats import GGML_FORMATS
from labsupport.anatomy.model_file_error import ModelFileError


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    """A GGUF file written by the reference package: three tensors, one of them quantized."""
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_string("general.name", "büro")
    writer.add_token_list([b"a", "é".encode(), b"\xff"])
    writer.add_array("test.numbers", [1.5, 2.5])
    writer.add_tensor("first.weight", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("norm.weight", np.ones(5, dtype=np.float16))
    quantized = gguf.quants.quantize(np.ones((2, 64), dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("packed.weight", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_block_formats_agree_with_the_reference_package() -> None:
    reference = {int(kind): size for kind, size in gguf.constants.GGML_QUANT_SIZES.items()}
    ours = {number: (form.block_weights, form.block_bytes) for number, form in GGML_FORMATS.items()}
    assert ours == {number: reference[number] for number in ours}
    assert {0, 1, 8, 10, 11, 12, 13, 14, 30} <= set(ours)


def test_header_equals_what_the_reference_reader_sees(small_file: Path) -> None:
    header = gguf_header.read(small_file)
    reference = gguf.GGUFReader(small_file)

    assert header.architecture == "llama"
    assert header.metadata["general.name"] == "büro"
    assert header.metadata["test.numbers"] == (1.5, 2.5)
    assert header.metadata["tokenizer.ggml.tokens"][2].encode("utf-8", "surrogateescape") == b"\xff"
    assert [(t.name, t.shape, t.nbytes, t.offset) for t in header.tensors] == [
        (t.name, tuple(int(n) for n in t.shape), t.n_bytes, t.data_offset) for t in reference.tensors
    ]
    assert header.parameters == 12 + 5 + 128
    assert header.weight_bytes == 48 + 10 + 4 * 34


def test_every_truncation_is_refused(small_file: Path) -> None:
    whole = small_file.read_bytes()
    last_byte = max(tensor.offset + tensor.nbytes for tensor in gguf_header.read(small_file).tensors)
    for length in [*range(0, last_byte, 7), last_byte - 1]:
        small_file.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            gguf_header.read(small_file)


def test_a_corrupt_header_is_refused_or_read_but_never_crashes(small_file: Path) -> None:
    whole = small_file.read_bytes()
    data_offset = gguf_header.read(small_file).data_offset
    chance = random.Random(0)
    refused = 0
    for _ in range(800):
        broken = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            broken[chance.randrange(data_offset)] = chance.randrange(256)
        small_file.write_bytes(broken)
        try:
            header = gguf_header.read(small_file)
        except ModelFileError:
            refused += 1
        else:
            assert all(t.offset + t.nbytes <= len(whole) for t in header.tensors)
    assert refused > 200


@pytest.mark.parametrize(
    ("offset", "raw", "said"),
    [
        (0, b"PK\x03\x04", "no GGUF file"),
        (4, struct.pack("<I", 99), "version 99"),
        (8, struct.pack("<Q", 2**60), "promises"),
        (16, struct.pack("<Q", 2**60), "promises"),
    ],
)
def test_a_false_beginning_is_named(small_file: Path, offset: int, raw: bytes, said: str) -> None:
    broken = bytearray(small_file.read_bytes())
    broken[offset : offset + len(raw)] = raw
    small_file.write_bytes(broken)
    with pytest.raises(ModelFileError, match=said):
        gguf_header.read(small_file)


def test_overlapping_tensors_are_refused(small_file: Path) -> None:
    raw = small_file.read_bytes()
    header = gguf_header.read(small_file)
    relative = header.tensors[1].offset - header.data_offset
    # The offset is the last field of an entry: type (f16 = 1) and then the number we know.
    field = struct.pack("<IQ", 1, relative)
    assert raw.count(field) == 1
    small_file.write_bytes(raw.replace(field, struct.pack("<IQ", 1, 0)))
    with pytest.raises(ModelFileError, match="overlap"):
        gguf_header.read(small_file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"nowhere\.gguf: there is no such file"):
        gguf_header.read(tmp_path / "nowhere.gguf")
