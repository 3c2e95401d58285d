"""`make bench`: every measurement, the most telling ones first, going on where it stopped."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import (
    batched_bench,
    crowd,
    http_overhead,
    ledger,
    memory,
    prefix,
    quiet,
    serving,
    steps,
    tables,
    trouble,
)
from benchmarks.entry import ending_with_status
from benchmarks.options import Options, parse
from benchmarks.results import RESULTS
from labsupport.errors import LabsupportError

MEASUREMENTS: dict[str, Callable[..., bool]] = {
    "prefix": prefix.run,
    "batched-bench": batched_bench.run,
    "serving": serving.run,
    "http-overhead": http_overhead.run,
    "memory": memory.run,
    "ledger": ledger.run,
    "steps": steps.run,
    "trouble": trouble.run,
    "crowd": crowd.run,
}


def main(argv: list[str] | None = None) -> int:
    """0 if it went well, complete or not."""
    options = parse(argv, "Speed and memory of this server, side by side with its peers.")
    for name in options.only:
        if name not in MEASUREMENTS:
            raise LabsupportError(f"there is no measurement {name!r}", allowed=", ".join(MEASUREMENTS))
    is_quiet = quiet.refuse_if_busy(anyway=options.anyway)
    _say_what_is_coming(options)
    unfinished = []
    for name, measure in MEASUREMENTS.items():
        if not options.only or name in options.only:
            print(f"{name}…", flush=True)
            if not measure(options, is_quiet=is_quiet):
                unfinished.append(name)
    tables.print_tables(options.results)
    if options.results == RESULTS:
        tables.main()
    if unfinished:
        print(f"Not all is measured yet ({', '.join(unfinished)}); the same command goes on from here.")
    return 0


def _say_what_is_coming(options: Options) -> None:
    limit = (
        f"at most about {options.budget_minutes:g} minutes" if options.budget_minutes else "no limit of time"
    )
    print(f"the {options.set} set, {options.pairs} pairs each, {limit}; results in {options.results.name}/")
    print("Interrupt it whenever you like: what is finished is kept.", flush=True)
    _ = options.budget  # begins to run here


if __name__ == "__main__":
    ending_with_status(main)
