"""`make soak`: two hours of mixed load in ten minutes, while things go wrong at random; nothing may be left.

    python tests/soak/soak.py [--seconds 600] [--seed 0]

Two hours at one request a second are 7,200 requests, which come here at twelve a second. At the end the
engine must be idle with all its invariants whole, memory and open files flat, the ledger without a gap, and
no request may have hung or been told what no fault excuses. Prints a summary; the exit status is 1 for any
violation.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from soak_clients import Callers
from soak_faults import Faults

import labsupport
from labsupport.server.launch import Server

REQUESTS_A_SECOND = 7200 / 600
FAULT_EVERY_SECONDS = 8.0
LONGEST_ANSWER_SECONDS = 240.0
"""Longer is hanging, on however busy a computer."""
LONGEST_RETURN_SECONDS = 120.0
"""Until the engine is back and idle after the last fault."""
MOST_GROWTH_BYTES = 64 * 2**20
MOST_FILES_LEFT = 8


@dataclass
class Report:
    """What a soak saw. It passed if there are no violations."""

    seconds: float
    outcomes: dict[str, int]
    faults: list[str]
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{sum(self.outcomes.values())} requests in {self.seconds:.0f} s"]
        lines += [f"  {count:6} {outcome}" for outcome, count in sorted(self.outcomes.items())]
        lines += [f"faults: {', '.join(self.faults) or 'none'}", f"violations: {len(self.violations)}"]
        return "\n".join([*lines, *(f"  {violation}" for violation in self.violations[:20])])


def soak(seconds: float, seed: int) -> Report:
    """Run the mixed load for so long, and look at what is left."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger"
        with labsupport.serve("pocket", slots=16, context=1024, debug=True, ledger=ledger) as server:
            report, finished = asyncio.run(_mixed_load(server, seconds, seed))
            processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
            if "Traceback" in server.log_tail(100_000):
                report.violations.append(f"the server's log has a traceback:\n{server.log_tail(30)}")
        if orphans := [process.pid for process in processes if _lives(process)]:
            report.violations.append(f"processes {orphans} outlive the server")
        report.violations += _gaps(ledger, finished)
    return report


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def _mixed_load(
    server: Server, seconds: float, seed: int
) -> tuple[Report, dict[str, tuple[int, int, int]]]:
    draw = random.Random(seed)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=LONGEST_ANSWER_SECONDS, limits=limits) as http:
        callers = Callers(http, draw)
        await callers.crowd(16)  # what is allocated once, is now
        own = psutil.Process(server.pid)
        before, files = own.memory_info().rss, own.num_fds()
        begin = time.monotonic()
        faults = Faults(server.pid, callers, random.Random(seed + 1))
        injecting = asyncio.create_task(
            faults.inject(every_seconds=FAULT_EVERY_SECONDS, until=begin + seconds)
        )
        calling = []
        while time.monotonic() < begin + seconds:
            calling.append(asyncio.create_task(callers.one()))
            await asyncio.sleep(draw.expovariate(REQUESTS_A_SECOND))
        await injecting
        await asyncio.gather(*calling)
        violations = callers.violations + await _what_is_left(http)
    await asyncio.sleep(1)  # for the connections to be gone on the other side too
    report = Report(time.monotonic() - begin, callers.outcomes, faults.done, violations)
    if len(faults.engines()) != 1:
        report.violations.append(f"{len(faults.engines())} engine processes")
    if (grown := own.memory_info().rss - before) > MOST_GROWTH_BYTES:
        report.violations.append(f"the server's memory grew by {grown / 2**20:.0f} MiB")
    if own.num_fds() > files + MOST_FILES_LEFT:
        report.violations.append(f"{own.num_fds() - files} more open files than before")
    return report, callers.finished


async def _what_is_left(http: httpx.AsyncClient) -> list[str]:
    """Wait until the engine is back and idle; then every way in which it is not as it was at first."""
    deadline = time.monotonic() + LONGEST_RETURN_SECONDS
    state: dict = {}
    while time.monotonic() < deadline:
        answer = await http.get("/debug/engine")
        state = answer.json()
        if answer.status_code == 200 and not (state["running"] or state["waiting"]):
            break
        await asyncio.sleep(0.2)
    if "violations" not in state or state["running"] or state["waiting"]:
        return [f"the engine is not back and idle after {LONGEST_RETURN_SECONDS:g} s: {state}"]
    problems = [f"invariant: {violation}" for violation in state["violations"]]
    if state["used_cells"] or state["sequences"]:
        problems.append(f"the pool is not empty: {state}")
    await asyncio.sleep(1)  # for a heartbeat
    metrics = (await http.get("/metrics")).text.splitlines()
    for gauge in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        values = [line.rsplit(" ", 1)[1] for line in metrics if line.startswith(f"labsupport:{gauge}{{")]
        if [float(value) for value in values] != [0]:
            problems.append(f"/metrics says {gauge} {values}")
    last = await http.post("/v1/completions", json={"model": "pocket", "prompt": "x", "max_tokens": 2})
    if last.status_code != 200:
        problems.append(f"a request after all of this: {last.status_code} {last.text[:300]}")
    return problems


def _gaps(ledger: Path, finished: dict[str, tuple[int, int, int]]) -> list[str]:
    """Every finished request that the ledger lacks or has otherwise, and every row that was never closed."""
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        rows = {
            id: (tuple(used), reason)
            for id, *used, reason in connection.execute(
                "SELECT id, prompt_tokens, cached_tokens, completion_tokens, finish_reason FROM requests"
            )
        }
    problems = [
        f"{id} used {used}; the ledger says {rows.get(id)}"
        for id, used in finished.items()
        if id not in rows or rows[id][0] != used
    ]
    if open_rows := [id for id, (_, reason) in rows.items() if reason is None]:
        problems.append(f"{len(open_rows)} rows of the ledger were never closed")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report = soak(arguments.seconds, arguments.seed)
    print(report)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
