"""Lab 01, exercise 1: read the header of a safetensors file with nothing but `open` and `json`.

Right is what the safetensors README specifies, with the places of the bytes counted from the start of the
file (the tests compare the reference with the safetensors library).
"""

from __future__ import annotations

import json
import random
from typing import Any

from labsupport.grading.exercise import Case, Exercise, Mistake, Part, Stumble, switches
from labsupport.grading.exercises.checkpoints import header_of, safetensors, values_in
from labsupport.grading.inside.plain import File

NAMES, PLACES, METADATA = "names, types and shapes", "where the bytes lie", "files with metadata"


def solve(
    file: File,
    *,
    start_after: str = "length and header",
    size: str = "end - begin",
    keep_metadata: bool = False,
    raw: bool = False,
) -> dict[str, Any]:
    """Tensor name → dtype, shape, start (from the start of the file) and bytes; switches are wrong ideas."""
    header = header_of(file.content)
    length = int.from_bytes(file.content[:8], "little")
    base = {
        "length and header": 8 + length,
        "header": length,
        "length": 8,
        "nothing": 0,
        "header written again": 8 + len(json.dumps(header)),
        "header written again, compactly": 8 + len(json.dumps(header, separators=(",", ":"))),
    }[start_after]
    tensors: dict[str, Any] = {}
    for name, entry in header.items():
        if name == "__metadata__" and not keep_metadata:
            continue
        if raw or name == "__metadata__":
            tensors[name] = entry
            continue
        begin, end = entry["data_offsets"]
        stored = {
            "end - begin": end - begin,
            "end": end,
            "one too many": end - begin + 1,
            "numbers": values_in(entry["shape"]),
        }[size]
        tensors[name] = {
            "dtype": entry["dtype"],
            "shape": entry["shape"],
            "start": base + begin,
            "bytes": stored,
        }
    return tensors


def draw(chance: random.Random) -> list[Case]:
    """Two files without metadata and two with; several dtypes, a scalar, names with dots."""

    def file(metadata: dict[str, str] | None) -> File:
        tensors: dict[str, tuple[str, list[int]]] = {}
        for layer in range(chance.randrange(2, 5)):
            dtype = chance.choice(["F32", "BF16", "F16", "I8", "F8_E4M3"])
            tensors[f"layers.{layer}.weight"] = (dtype, [chance.randrange(2, 9), chance.randrange(2, 9)])
            tensors[f"layers.{layer}.norm"] = ("F32", [chance.randrange(2, 9)])
        tensors["scale"] = ("F32", [])
        content = safetensors(tensors, chance, metadata)
        if not content[8 : 8 + int.from_bytes(content[:8], "little")].endswith(b" "):
            return file(metadata)  # only padding tells the header's length from that of its JSON
        return File(f"drawn_{chance.randrange(1000)}.safetensors", content)

    return [
        Case((file(None),), (NAMES, PLACES)),
        Case((file(None),), (NAMES, PLACES)),
        Case((file({"format": "pt"}),), (METADATA,)),
        Case((file({"format": "pt", "made_by": "a course"}),), (METADATA,)),
    ]


def names_types_shapes(answer: dict[str, Any]) -> dict[str, Any]:
    """The part of an answer that says what is in the file."""
    return {name: [entry["dtype"], entry["shape"]] for name, entry in answer.items()}


def places(answer: dict[str, Any]) -> dict[str, Any]:
    """The part of an answer that says where in the file it is."""
    return {name: [entry["start"], entry["bytes"]] for name, entry in answer.items()}


AGAIN = (
    "You measured the header by writing its JSON again. The one in the file may be spaced otherwise and have "
    "padding behind it: its length is what the first 8 bytes say."
)
MISTAKES = (
    Mistake(
        "start counted from the data",
        "Every `start` is too small by the same amount: `data_offsets` count "
        "from the first byte *after* the header. From the start of the file that is 8 bytes of length, then "
        "the header, then the offset.",
        switches(start_after="nothing"),
    ),
    Mistake(
        "length field forgotten",
        "Every `start` is 8 too small: you added the header's length, but not the 8 bytes in which that "
        "length is written.",
        switches(start_after="header"),
    ),
    Mistake(
        "header forgotten",
        "Every `start` is too small by the length of the header: the data begins after the 8 bytes of "
        "length *and* the header.",
        switches(start_after="length"),
    ),
    Mistake(
        "header measured compactly",
        AGAIN,
        switches(start_after="header written again, compactly"),
    ),
    Mistake(
        "header measured again",
        AGAIN,
        switches(start_after="header written again"),
    ),
    Mistake(
        "numbers for bytes",
        "`bytes` counts numbers: right for tensors of one byte each only. Take the difference of the two "
        "`data_offsets`, or multiply by the bytes that a number of that `dtype` takes.",
        switches(size="numbers"),
    ),
    Mistake(
        "end taken for size",
        "`bytes` is right for the first tensor only: the second of the two `data_offsets` is where the "
        "tensor ends, not how long it is. Subtract.",
        switches(size="end"),
    ),
    Mistake(
        "end counted in",
        "`bytes` is 1 too large: the end offset is the first byte that no longer belongs to the tensor, as "
        "in a Python slice.",
        switches(size="one too many"),
    ),
    Mistake(
        "metadata kept",
        "There is a tensor too many: `__metadata__` is not a tensor but free notes about the file. Leave it "
        "out.",
        switches(keep_metadata=True),
    ),
    Mistake(
        "header returned as it is",
        "That is the header as it stands in the file. Turn each `data_offsets` into a `start`, counted from "
        "the start of the file, and a number of `bytes`.",
        switches(raw=True),
    ),
    Mistake(
        "whole header returned as it is",
        "That is the header as it stands in the file. Leave out `__metadata__`, which is not a tensor, and "
        "turn each `data_offsets` into a `start`, counted from the start of the file, and a number of "
        "`bytes`.",
        switches(raw=True, keep_metadata=True),
    ),
)

STUMBLES = (
    Stumble(
        "byte order",
        "A header of that length? The 8 bytes are little-endian: the first one counts least. "
        'Say so: `int.from_bytes(…, "little")`.',
        ("MemoryError", "OverflowError", "ValueError"),
    ),
    Stumble(
        "not the header's bytes",
        "The bytes handed to `json` are not exactly the header: it starts at byte 8 and is as long as the "
        "first 8 bytes say, read as a little-endian unsigned number.",
        ("JSONDecodeError", "UnicodeDecodeError"),
    ),
    Stumble(
        "metadata taken for a tensor",
        "`__metadata__` has no such entry, because it is not a tensor but free notes about the file. Skip "
        "it.",
        ("KeyError",),
    ),
    Stumble(
        "opened as text",
        'Weights are not text: open the file with mode `"rb"`.',
        ("TypeError",),
        "bytes",
    ),
)

EXERCISE = Exercise(
    name="read_header",
    title="Read a safetensors header",
    parts=(Part(NAMES, 2, names_types_shapes), Part(PLACES, 2, places), Part(METADATA, 1)),
    draw=draw,
    solve=solve,
    mistakes=MISTAKES,
    stumbles=STUMBLES,
)
