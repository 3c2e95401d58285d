"""`labsupport …`: one module per command, imported only when that command is asked for.

A command module offers `configure(parser)`, which declares its arguments and imports nothing heavy, and
`run(arguments) -> int`, the exit status. So `labsupport --help` stays under 0.3 s.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from labsupport import __version__
from labsupport.errors import LabsupportError

COMMANDS = {
    "doctor": "check this computer, with a remedy for whatever fails",
    "datasheet": "one page on what this computer can do, as a picture and as JSON",
    "models": "list, pull, pin, verify and evaluate models, or print a model file's path",
    "serve": "run the inference server",
    "loadtest": "put a load on a server and report what its callers felt",
    "usage": "print a bill from a server's usage ledger",
    "grade": "grade submitted labs in a sandbox",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 a failed check or error, 2 wrong usage."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="labsupport", description="Tools of the course Under the Endpoint.")
    parser.add_argument("--version", action="version", version=f"labsupport {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    module = None
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary.capitalize() + ".")
        if name == chosen:
            module = importlib.import_module(f"labsupport.cli.{name}")
            module.configure(command)
    arguments = parser.parse_args(words)
    assert module is not None  # argparse has refused every other name
    try:
        return int(module.run(arguments))
    except LabsupportError as error:
        print(f"labsupport {arguments.command}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
