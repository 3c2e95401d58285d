"""What `--ledger` costs: our server with one against our server without."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.contenders.ours import Ours
from benchmarks.loads import LOADS
from benchmarks.options import Options
from benchmarks.serving import Cell, compare

CLIENTS = 16
MODEL = "pocket"
"""The smaller the model, the more rows a second: the worst case for the ledger."""


def run(options: Options, *, is_quiet: bool) -> bool:
    """Measure what is missing; whether all is there now."""
    setup = options.setup(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        with_ledger = Ours(name="ours-with-ledger", ledger=Path(folder) / "ledger")
        cell = Cell(MODEL, LOADS["plain"], CLIENTS)
        return compare(with_ledger, Ours(), setup, [cell], options, experiment="ledger", is_quiet=is_quiet)
