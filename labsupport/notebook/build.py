"""From a lesson's source to the notebook that is committed: `make lessons`.

`lessons/src/NN_topic.py` (jupytext percent) is the source of truth; `lessons/NN_topic.ipynb` is made from
it and executed, so that it reads well without running. Right means: the same source gives the same cells,
ids and metadata, whoever builds it and where; the outputs say nothing about the builder's computer but what
was measured on it; and a lesson that fails, prints a warning or takes longer than a reader will wait is not
written.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import os
import re
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labsupport.errors import LabsupportError

SECONDS_AT_MOST = 90.0
MEASURED = "measured"
FOLDED = "hide-input"  # a cell that only draws: JupyterLab shows its figure, and its code on a click
IGNORE_OUTPUT = "nbval-ignore-output"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# A live widget is gone once its kernel is; the picture or the text beside it is what a page without one
# shows.
LIVE_ONLY = "application/vnd.jupyter.widget-view+json"


class BuildError(LabsupportError):
    """A lesson that cannot be published as it is."""


def converted(source: Path) -> Any:
    """The unexecuted notebook of a percent script: cells, ids and metadata depend on the source alone.

    A cell tagged `measured` shows numbers that differ from run to run: nbval is told not to compare its
    output.
    """
    import jupytext
    import nbformat

    notebook = jupytext.read(source)
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[digest] += 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        tags = cell.metadata.get("tags", [])
        metadata: dict[str, Any] = {}
        if tags:
            metadata["tags"] = [*tags, *([IGNORE_OUTPUT] if MEASURED in tags else [])]
        if FOLDED in tags:
            metadata["jupyter"] = {"source_hidden": True}
        cell.metadata = nbformat.from_dict(metadata)
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(notebook: Any, *, folder: Path, seconds_at_most: float = SECONDS_AT_MOST) -> float:
    """Run every cell in a fresh kernel in `folder`, as a reader without history; returns the seconds.

    Raises `BuildError` with the cell and its error if a cell fails, or if the notebook takes too long.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    client = NotebookClient(
        notebook,
        timeout=int(seconds_at_most),
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
    )
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as nobody:
        try:
            client.execute(env={**os.environ, "LABSUPPORT_DATA": nobody, "OMP_WAIT_POLICY": "PASSIVE"})
        except (CellExecutionError, CellTimeoutError) as error:
            raise BuildError(f"a cell failed:\n{error}", remedy="mend the cell in lessons/src") from error
    seconds = time.monotonic() - started
    if seconds > seconds_at_most:
        raise BuildError(
            f"the notebook took {seconds:.0f} s",
            allowed=f"{seconds_at_most:.0f} s for restart-and-run-all on 2 cores",
            remedy="measure on fewer tokens or a smaller model",
        )
    return seconds


def tidied(notebook: Any, *, root: Path) -> Any:
    """The executed notebook without live widgets and without the builder's paths and names.

    Raises `BuildError` for a warning on stderr, and for a machine's path in a cell whose output is compared.
    """
    import nbformat

    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        for output in cell.outputs:
            output.get("data", {}).pop(LIVE_ONLY, None)
            output.get("metadata", {}).pop(LIVE_ONLY, None)
            if output.output_type == "stream" and output.name == "stderr":
                raise BuildError(
                    f"a cell prints a warning:\n{cell.source}\n---\n{output.text}",
                    remedy="mend what it warns of, or silence exactly that warning where it arises",
                )
        found = sorted({hit for text in _texts(cell.outputs) for hit in _private(root).findall(text)})
        if found and MEASURED not in cell.metadata.get("tags", []):
            raise BuildError(
                f"a cell prints something of this computer: {', '.join(found)}\n{cell.source}",
                remedy="print a path relative to the course, or what was checked of it",
            )
        cell.outputs = _scrubbed(cell.outputs, _private(root))
    notebook.metadata = nbformat.from_dict(METADATA)  # a kernel adds its own
    return notebook


def _private(root: Path) -> re.Pattern[str]:
    """Finds the builder's folders and login; not in base64, where `/tmp/` is a chance like any other."""
    words = [str(root.resolve()), str(Path.home()), tempfile.gettempdir() + "/"]
    login = f"{getpass.getuser()}@{socket.gethostname()}"
    return re.compile("(?<![A-Za-z0-9+/])(?:" + "|".join(map(re.escape, [*words, login])) + ")")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _scrubbed(value: Any, private: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return private.sub("…", value)
    if isinstance(value, dict):
        return type(value)({key: _scrubbed(item, private) for key, item in value.items()})
    return [_scrubbed(item, private) for item in value] if isinstance(value, list) else value


def build(source: Path, target: Path) -> float:
    """Make, execute and write one notebook; returns the seconds it took. A failure writes nothing."""
    import nbformat

    notebook = converted(source)
    seconds = execute(notebook, folder=target.parent)
    draft = target.with_suffix(".ipynb.draft")
    draft.write_text(nbformat.writes(tidied(notebook, root=target.parents[1])) + "\n")
    draft.replace(target)
    return seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Build the lessons that are named, or all; the exit status is 1 if one of them could not be built."""
    parser = argparse.ArgumentParser(prog="make lessons", description="Generate and execute the lessons.")
    parser.add_argument("names", nargs="*", help="such as 01_weights (default: all)")
    parser.add_argument("--lessons", type=Path, default=Path("lessons"))
    arguments = parser.parse_args(argv)
    sources = sorted((arguments.lessons / "src").glob("[0-9][0-9]_*.py"))
    chosen = [source for source in sources if not arguments.names or source.stem in arguments.names]
    if unknown := set(arguments.names) - {source.stem for source in sources}:
        print(
            f"No such lesson: {', '.join(sorted(unknown))}. There are: {', '.join(s.stem for s in sources)}"
        )
        return 2
    failed = 0
    for source in chosen:
        try:
            seconds = build(source, arguments.lessons / f"{source.stem}.ipynb")
            print(f"{source.stem}: {seconds:.1f} s", flush=True)
        except BuildError as error:
            failed = 1
            print(f"{source.stem}: {error}", file=sys.stderr, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
