"""How a measurement ends as a command: with an exit status, and words instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from labsupport.errors import LabsupportError


def ending_with_status(main: Callable[[], int]) -> NoReturn:
    """Exit with what `main` returns; 1 with a LabsupportError's words; 130 on Ctrl+C."""
    try:
        status = main()
    except LabsupportError as error:
        print(error, file=sys.stderr)
        status = error.exit_status
    except KeyboardInterrupt:
        print("interrupted; the same command goes on after the last finished pair", file=sys.stderr)
        status = 130
    sys.exit(status)
