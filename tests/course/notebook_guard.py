"""What strict nbval cannot see: why a notebook would pass although nothing of it was compared.

`complaints(notebook, source)` lists everything that is wrong; an empty list is a notebook whose outputs nbval
compares, cell for cell, with those of a fresh run.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from typing import Any

ESCAPES = re.compile(r"#\s*(NBVAL|PYTEST_VALIDATE)|nbval-|raises-exception")


def complaints(notebook: Any, source: Any) -> list[str]:
    """Everything wrong with a committed notebook, given the unexecuted one that its source makes."""
    return [*_never_compared(notebook), *_drift(notebook, source), *_escapes(source), *_unasserted(notebook)]


def _never_compared(notebook: Any) -> Iterator[str]:
    """nbval compares no cell whose execution count is null: a stripped notebook passes."""
    counts = [
        cell.execution_count for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()
    ]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, not 1 to {len(counts)}: build it again with `make lessons`"
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error" or output.get("name") == "stderr":
                yield f"an error or a warning stands below: {_head(cell)}"


def _drift(notebook: Any, source: Any) -> Iterator[str]:
    """The cells, their ids and tags, and the metadata are those that the source makes."""
    if notebook.metadata != source.metadata:
        yield "the notebook's metadata are not those that its source makes"
    if len(notebook.cells) != len(source.cells):
        yield f"the notebook has {len(notebook.cells)} cells and its source makes {len(source.cells)}"
    for cell, original in zip(notebook.cells, source.cells, strict=False):
        if any(cell[part] != original[part] for part in ("cell_type", "source", "id", "metadata")):
            yield f"a cell is not what its source makes: {_head(cell)}"


def _escapes(source: Any) -> Iterator[str]:
    """The only way out of comparison is the tag `measured`."""
    for cell in source.cells:
        tags = cell.metadata.get("tags", [])
        own_tags = [tag for tag in tags if not ("measured" in tags and tag == "nbval-ignore-output")]
        if cell.cell_type == "code" and (ESCAPES.search(cell.source) or ESCAPES.search(" ".join(own_tags))):
            yield f"a cell escapes comparison otherwise than by the tag “measured”: {_head(cell)}"


def _unasserted(notebook: Any) -> Iterator[str]:
    """A measured cell is followed by a cell that asserts something."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, following in zip(code, [*code[1:], None], strict=True):
        if "measured" in cell.metadata.get("tags", []) and not (following and _asserts(following.source)):
            yield f"a measured cell is not followed by one that asserts something of it: {_head(cell)}"


def _asserts(source: str) -> bool:
    """Whether an assertion of the cell can fail: not `assert True`, `assert x == x` or `assert x or True`."""
    return any(_can_fail(node.test) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert))


def _can_fail(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp):
        decide = all if isinstance(test.op, ast.Or) else any
        return decide(_can_fail(part) for part in test.values)
    if isinstance(test, ast.Compare):
        sides = [ast.dump(side) for side in (test.left, *test.comparators)]
        if len(set(sides)) < len(sides):
            return False
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _can_fail(test.operand)
    used = {part.id for part in ast.walk(test) if isinstance(part, ast.Name)}
    return bool(used - set(dir(builtins)))


def _head(cell: Any) -> str:
    return f"{cell.source.strip().splitlines()[0] if cell.source.strip() else '(empty)'!r} ({cell.get('id')})"
