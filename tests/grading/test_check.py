"""The instant check: it judges the function in the notebook that calls it, and its answer can be read."""

from __future__ import annotations

import pytest

from labsupport.errors import LabsupportError
from labsupport.grading import check
from labsupport.grading.inside.plain import NotPlainError, as_plain
from labsupport.grading.instant_check import CheckFailedError, with_code
from labsupport.grading.judge import same


def in_a_notebook(source: str) -> object:
    namespace: dict = {"check": check}
    exec(f"{source}\nshown = check('quantized_bytes')", namespace)
    return namespace["shown"]


def test_a_right_function_is_found_and_passes():
    source = """
def quantized_bytes(shape, bits, group, scale_bits, offset_bits):
    if len(shape) == 1: return 2 * shape[0]
    rows, columns = shape
    return -(-rows * (columns * bits - -columns // group * -(scale_bits + offset_bits)) // 8)
"""
    assert repr(in_a_notebook(source)).startswith("quantized_bytes: ")


def test_a_wrong_function_is_told_why_in_text_and_in_html():
    shown = in_a_notebook("def quantized_bytes(shape, *rest): return 0 if len(shape) > 1 else 2 * shape[0]")
    assert "1 of 5 points" in repr(shown)
    assert "Right is `" in repr(shown)
    page = shown._repr_html_()
    assert "1 of 5 points" in page
    assert "<code>quantized_bytes(" in page


def test_a_function_that_is_not_there_is_asked_for():
    assert "There is no function `quantized_bytes` here" in repr(in_a_notebook("pass"))


def test_an_exercise_that_does_not_exist_names_those_that_do():
    with pytest.raises(LabsupportError) as caught:
        check("quantised_bytes")
    assert "quantized_bytes" in caught.value.allowed


def test_validation_by_nbgrader_sees_an_error(monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
    with pytest.raises(CheckFailedError, match="Nothing is written here yet"):
        in_a_notebook("def quantized_bytes(*_): raise NotImplementedError")


def test_what_a_student_named_or_raised_cannot_become_markup():
    shown = in_a_notebook("def quantized_bytes(*_): raise ValueError('<script>`*</code>')")
    assert "<script" not in shown._repr_html_()
    assert with_code("a `<b>` *c*\nd") == "a <code>&lt;b&gt;</code> <em>c</em><br>d"


class Yes(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize("value", [Yes(3), object(), {1: 2}, {"a": Yes(1)}, [[Yes(0)]], 3 + 4j, b"x", {1}])
def test_only_plain_data_crosses_the_wall(value):
    with pytest.raises(NotPlainError):
        as_plain(value)


@pytest.mark.parametrize(
    ("expected", "value", "equal"),
    [
        (1, 1.0, False),
        (1, True, False),
        (0.3, 0.1 + 0.2, True),
        ([1], [1, 1], False),
        ({"a": 1}, {"a": 1}, True),
    ],
)
def test_equal_means_of_the_same_type_too(expected, value, equal):
    assert same(expected, value) is equal
