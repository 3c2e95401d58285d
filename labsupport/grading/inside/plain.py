"""What may cross the wall between a student's code and the grader: plain data, and files to read.

Answers cross as `None`, `bool`, `int`, `float`, `str`, `list` and `dict` with `str` keys, of exactly those
types. An object that only behaves like a number (and equals everything) is therefore refused before it is
compared. NumPy's numbers and arrays are turned into plain ones, because they are a fair way to write an
answer.

This module runs on both sides of the wall and so imports nothing but the standard library.
"""

from __future__ import annotations

import base64
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_DEPTH = 20
MAX_ITEMS = 100_000
MAX_STRING_CHARACTERS = 1_000_000
MAX_INTEGER_BITS = 1_024


class NotPlainError(Exception):
    """An answer that is not plain data; the text names what was found and what is wanted."""


@dataclass(frozen=True)
class File:
    """An input that the student's function receives as the path (`str`) of a file with this content."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Directory:
    """An input that the student's function receives as the path (`str`) of a folder holding these files."""

    files: tuple[File, ...]

    def content(self, name: str) -> bytes:
        """The bytes of the file called `name`; `KeyError` without one."""
        for file in self.files:
            if file.name == name:
                return file.content
        raise KeyError(name)


@dataclass(frozen=True)
class Bundled:
    """An input that the student's function receives as the path (`str`) of a folder of this package."""

    path: str

    def content(self, name: str) -> bytes:
        """The bytes of the file called `name`."""
        return (PACKAGE / self.path / name).read_bytes()


# `labsupport/` itself, wherever this module is mounted: inside, it stands one folder higher.
PACKAGE = next(folder for folder in Path(__file__).resolve().parents if folder.name == "labsupport")


def as_plain(value: Any) -> Any:
    """`value` rebuilt out of exact plain types (tuples become lists), or `NotPlainError`."""
    return _rebuild(value, depth=0, budget=[MAX_ITEMS])


def _rebuild(value: Any, *, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if budget[0] < 0:
        raise NotPlainError(f"more than {MAX_ITEMS:,} values")
    if depth > MAX_DEPTH:
        raise NotPlainError(f"lists nested more than {MAX_DEPTH} deep")
    value = _without_numpy(value)
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return value
    if kind is int:
        if int.bit_length(value) > MAX_INTEGER_BITS:
            raise NotPlainError(f"an integer of more than {MAX_INTEGER_BITS:,} bits")
        return value
    if kind is str:
        if len(value) > MAX_STRING_CHARACTERS:
            raise NotPlainError(f"a text of more than {MAX_STRING_CHARACTERS:,} characters")
        return value
    if kind is list or kind is tuple:
        return [_rebuild(item, depth=depth + 1, budget=budget) for item in value]
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise NotPlainError(f"a dict with a key of type {type(key).__name__}, where text is wanted")
        return {key: _rebuild(item, depth=depth + 1, budget=budget) for key, item in value.items()}
    raise NotPlainError(f"an object of type {kind.__name__}")


def _without_numpy(value: Any) -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(value).__module__ == "numpy":
        if isinstance(value, numpy.generic):
            return value.item()
        if isinstance(value, numpy.ndarray):
            return value.tolist()
    return value


def to_wire(value: Any) -> Any:
    """An input as JSON can carry it: plain data as it is, files in base 64."""
    if isinstance(value, File):
        return {"$file": value.name, "base64": base64.b64encode(value.content).decode()}
    if isinstance(value, Directory):
        return {"$directory": [to_wire(file) for file in value.files]}
    if isinstance(value, Bundled):
        return {"$bundled": value.path}
    return as_plain(value)


def from_wire(value: Any, folder: Path) -> Any:
    """The input for the student's function: files are written under `folder`, and their paths handed over."""
    if isinstance(value, dict) and "$file" in value:
        path = folder / value["$file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(value["base64"]))
        return str(path)
    if isinstance(value, dict) and "$directory" in value:
        folder.mkdir(parents=True, exist_ok=True)
        for file in value["$directory"]:
            from_wire(file, folder)
        return str(folder)
    if isinstance(value, dict) and "$bundled" in value:
        return str(PACKAGE / value["$bundled"])
    return value
