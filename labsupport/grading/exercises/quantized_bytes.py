"""Lab 01, exercise 3: the bytes of a quantized matrix, scales and offsets included.

Right is the plain layout that block formats use (llama.cpp's Q4_0 and Q8_0 are checked against it in the
tests): every row is cut into groups; each group stores its weights in `bits` bits, one scale and perhaps one
offset. A tensor of one dimension is too small and too delicate to quantize and stays in 16 bits.
"""

from __future__ import annotations

import random

from labsupport.grading.exercise import Case, Exercise, Mistake, Part, Stumble, switches

WHOLE, OFFSET, RAGGED, VECTOR = (
    "weights and their scales",
    "offsets",
    "a last group that is not full",
    "tensors of one dimension",
)


def solve(
    shape: list[int],
    bits: int,
    group: int,
    scale_bits: int,
    offset_bits: int,
    *,
    groups: str = "per row, rounded up",
    scales: int = 1,
    offsets: int = 1,
    scale_unit_bits: int = 1,
    container_bits: int = 1,
    answer_in_bits: bool = False,
    round_up: bool = True,
    round_rows: bool = False,
    pad_group: bool = False,
    vectors_in_16_bits: bool = True,
) -> int:
    """Bytes of one tensor; each switch is one wrong idea about where they go."""
    if len(shape) == 1 and vectors_in_16_bits:
        total_bits = shape[0] * 16
    else:
        rows, columns = (shape[0], shape[1]) if len(shape) == 2 else (1, shape[0])
        number_of_groups = {
            "per row, rounded up": rows * -(-columns // group),
            "per row, rounded down": rows * (columns // group),
            "across rows": -(-rows * columns // group),
            "one per row": rows,
            "one per tensor": 1,
        }[groups]
        stored = number_of_groups * group if pad_group else rows * columns
        bits_per_weight = -(-bits // container_bits) * container_bits
        extra = (scales * scale_bits + offsets * offset_bits) * scale_unit_bits
        total_bits = stored * bits_per_weight + number_of_groups * extra
        if round_rows:
            total_bits = rows * (-(-total_bits // (8 * rows)) * 8)  # every row holds the same number of bits
    if answer_in_bits:
        return total_bits
    return -(-total_bits // 8) if round_up else total_bits // 8


def draw(chance: random.Random) -> list[Case]:
    """Two calls for each part. Odd widths and heights make every wrong idea, rounding included, another
    number.
    """

    def call(*, ragged: bool = False, offset: bool = False) -> tuple[list[int], int, int, int, int]:
        group = chance.choice([32, 64, 128])
        rows = 2 * chance.randrange(9, 60) + 1
        columns = group * chance.randrange(3, 30) + (
            2 * chance.randrange(1, group // 2 - 1) + 1 if ragged else 0
        )
        scale = chance.choice([16, 32])
        return (
            [rows, columns],
            chance.choice([2, 3, 4, 5]),
            group,
            scale,
            chance.choice([4, 8]) if offset else 0,
        )

    def vector() -> tuple[list[int], int, int, int, int]:
        return [32 * chance.randrange(8, 128)], 4, 32, 16, 0

    return [
        Case(call(), (WHOLE,)),
        Case(call(), (WHOLE,)),
        Case(call(offset=True), (OFFSET,)),
        Case(call(offset=True), (OFFSET,)),
        Case(call(ragged=True), (RAGGED,)),
        Case(call(ragged=True), (RAGGED,)),
        Case(vector(), (VECTOR,)),
        Case(vector(), (VECTOR,)),
    ]


MISTAKES = (
    Mistake(
        "scales forgotten",
        "Too small: you counted the weights, but not what it takes to read them back. Each group stores a "
        "scale of `scale_bits` as well (and an offset, where there is one).",
        switches(scales=0, offsets=0),
    ),
    Mistake(
        "offsets forgotten",
        "Right where there is no offset. Where `offset_bits` is not 0, each group stores an offset beside "
        "its scale.",
        switches(offsets=0),
    ),
    Mistake(
        "scale counted twice",
        "Too large, by exactly one scale per group: the bits of the scale are counted twice.",
        switches(scales=2),
    ),
    Mistake(
        "scale bits taken for bytes",
        "The scales are counted 8 times too large: `scale_bits` and `offset_bits` are bits, like `bits`. "
        "Add bits to bits, and divide by 8 once, at the end.",
        switches(scale_unit_bits=8),
    ),
    Mistake(
        "one scale per tensor",
        "You counted one scale for the whole tensor. Every group of `group` weights has its own.",
        switches(groups="one per tensor"),
    ),
    Mistake(
        "one scale per row",
        "You counted one scale per row. A row is cut into groups of `group` weights, each with its own "
        "scale.",
        switches(groups="one per row"),
    ),
    Mistake(
        "last group dropped",
        "Right where the groups come out even. Where they do not, the last weights of each row are a group "
        "too: round the number of groups up, not down (`-(-columns // group)`).",
        switches(groups="per row, rounded down"),
    ),
    Mistake(
        "groups run across rows",
        "Right where the groups come out even. Where they do not, yours run on from one row into the next: "
        "cut each row by itself, count its groups, then multiply by the rows.",
        switches(groups="across rows"),
    ),
    Mistake(
        "last group padded",
        "You filled up the last group of each row with weights that are not there. It has its own scale, "
        "but stores only the weights it has.",
        switches(pad_group=True),
    ),
    Mistake(
        "bits for bytes",
        "Your value is 8 times too large: that is bits. A byte has 8 of them.",
        switches(answer_in_bits=True),
    ),
    Mistake(
        "a byte per weight",
        "You gave every weight whole bytes. Quantized weights are packed: 2 weights of 4 bits share a byte.",
        switches(container_bits=8),
    ),
    Mistake(
        "rounded down",
        "Too small by one byte now and then: where the bits do not fill the last byte, that byte is still "
        "needed. Round up.",
        switches(round_up=False),
    ),
    Mistake(
        "rows rounded up",
        "Too large by less than a byte per row: you rounded each row up to whole bytes. The rows are packed "
        "without gaps, and only the tensor as a whole is rounded up.",
        switches(round_rows=True),
    ),
    Mistake(
        "vectors quantized",
        "Right for matrices. A tensor of one dimension, such as a norm, is not quantized: it keeps 16 bits "
        "per weight and needs no scale.",
        switches(vectors_in_16_bits=False),
    ),
)

STUMBLES = (
    Stumble(
        "vector unpacked as matrix",
        "Not every tensor is a matrix: a norm has a shape of one number. It stays in 16 bits, without "
        "scales.",
        ("ValueError", "IndexError"),
    ),
)

EXERCISE = Exercise(
    name="quantized_bytes",
    title="Bytes of a quantized matrix, overhead included",
    parts=(Part(WHOLE, 2), Part(OFFSET, 1), Part(RAGGED, 1), Part(VECTOR, 1)),
    draw=draw,
    solve=solve,
    mistakes=MISTAKES,
    stumbles=STUMBLES,
)
