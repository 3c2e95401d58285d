"""`labsupport datasheet`: measure this computer and say, on one page, what it can do."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print the sheet as JSON")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also draw it into this .png, .svg or .pdf")
    parser.add_argument("--quick", action="store_true", help="measure less, in a few seconds")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and draw if asked to."""
    from labsupport.machine.sheet import datasheet

    if arguments.out:
        from labsupport.machine.sheet_picture import save, writable

        writable(arguments.out)  # a wrong name is better known before the measurement than after it
    sheet = datasheet(quick=arguments.quick)
    print(json.dumps(sheet.as_json(), indent=1) if arguments.json else sheet)
    if arguments.out:
        save(sheet, arguments.out)
    return 0
