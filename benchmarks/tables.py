"""The tables of README.md, made from the results files: `python -m benchmarks.tables` writes them anew.

Every ratio is turned so that more is better for the first contender, which is ours: its tokens a second over
the other's, the other's latency over its. Right means: no figure in the README between two marks was typed.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bootstrap import Estimate, estimate
from benchmarks.quiet import BUSY_SHARE
from benchmarks.results import RESULTS, read_all

README = Path(__file__).with_name("README.md")
NOTHING = "*Nothing has been measured yet: no results file is here.*"
_MARKED = re.compile(r"<!-- results: ([a-z-]+) -->\n.*?<!-- end -->", re.DOTALL)


class Metric(NamedTuple):
    """A figure of a run: its heading and whether more of it is better."""

    key: str
    heading: str
    more_is_better: bool


METRICS = {
    "serving": (
        Metric("output_tokens_per_second", "output tokens/s", True),
        Metric("ttft_p95", "p95 TTFT", False),
        Metric("itl_p95", "p95 ITL", False),
        Metric("e2e_p95", "p95 E2E", False),
    ),
    "ledger": (Metric("output_tokens_per_second", "output tokens/s", True),),
    "http-overhead": (Metric("whole_run_tokens_per_second", "tokens/s", True),),
    "prefix": (Metric("ttft_median", "median TTFT", False),),
    "batched-bench": (Metric("whole_run_tokens_per_second", "tokens/s", True),),
    "steps": (Metric("tokens_per_second", "tokens/s", True),),
    "crowd": (
        Metric("output_tokens_per_second", "output tokens/s", True),
        Metric("health_p99", "p99 of health", False),
    ),
}
OTHERS = ("memory", "memory-growth", "trouble")
"""Experiments that compare nothing."""


def ratios(result: dict[str, Any], metric: Metric) -> list[float]:
    """One ratio a pair, over 1 where the first contender is better; none of a pair without the figure."""
    ours, theirs = result["settings"]["order"]
    found = []
    for pair in result["pairs"]:
        mine = pair["runs"][ours]["figures"].get(metric.key)
        other = pair["runs"][theirs]["figures"].get(metric.key)
        if mine and other and mine == mine and other == other:  # NaN is not equal to itself
            found.append(mine / other if metric.more_is_better else other / mine)
    return found


def table(experiment: str, results: Sequence[dict[str, Any]]) -> str:
    """The Markdown for one experiment, of the results that belong to it."""
    mine = [one for one in results if one["experiment"] == experiment and one["pairs"]]
    if not mine:
        return NOTHING
    if experiment == "memory":
        return _memory_table(mine)
    if experiment == "memory-growth":
        return _growth_table(mine)
    if experiment == "trouble":
        return _trouble_table(mine)
    metrics = METRICS[experiment]
    head = ["comparison", "pairs", *(name for metric in metrics for name in _headings(metric))]
    rows = [
        [title(one), str(len(one["pairs"])), *(cell for metric in metrics for cell in _cells(one, metric))]
        for one in sorted(mine, key=order_of_rows)
    ]
    notes = [f"- {one['name']}: {caveat}." for one in mine for caveat in caveats(one)]
    return "\n".join([lines(head, rows), *(["", "Mind:", "", *notes] if notes else [])])


def caveats(result: dict[str, Any]) -> list[str]:
    """What makes a result mean less than it seems to."""
    found = []
    if loud := sum(not pair.get("quiet", True) for pair in result["pairs"]):
        found.append(f"{loud} of {len(result['pairs'])} pairs were measured on a busy machine")
    runs = [(name, run) for pair in result["pairs"] for name, run in pair["runs"].items()]
    if disturbed := sum(run.get("other_cpu_share", 0) > BUSY_SHARE for _, run in runs):
        found.append(f"in {disturbed} of {len(runs)} runs others used over {BUSY_SHARE:.0%} of a core")
    summaries = [(name, run["summary"]) for name, run in runs if "summary" in run]
    for name in dict.fromkeys(name for name, _ in summaries):
        mine = [summary for other, summary in summaries if other == name]
        if failed := sum(one["requests"] - one["answered"] for one in mine):
            found.append(f"{failed} requests to {name} failed")
        if short := sum(not one["window"]["is_steady"] for one in mine if "seconds" in result["settings"]):
            found.append(f"{short} runs of {name} were too short to cut their ramps off")
    unlike: set[tuple[str, int]] = set()
    for pair in result["pairs"]:
        told = [(name, run["summary"]) for name, run in pair["runs"].items() if "summary" in run]
        counts = {
            (name, round(summary["prompt_tokens"] / summary["answered"]))
            for name, summary in told
            if summary["answered"] and summary["prompt_tokens"]
        }
        if len({count for _, count in counts}) > 1:
            unlike |= counts
    if result["experiment"] == "serving" and unlike:
        seen = ", ".join(f"{name} {count}" for name, count in sorted(unlike))
        found.append(f"they do not count the same prompt tokens: {seen}")
    return found


def readme_with_tables(text: str, results: Sequence[dict[str, Any]]) -> str:
    """The README's text with each table between its marks made anew."""

    def fresh(match: re.Match[str]) -> str:
        return f"<!-- results: {match[1]} -->\n{section(match[1], results)}\n<!-- end -->"

    return _MARKED.sub(fresh, text)


def section(name: str, results: Sequence[dict[str, Any]]) -> str:
    """What stands between one pair of marks: a table, or with what all this was measured."""
    if name.startswith("gpu-"):
        from benchmarks.cuda import tables as of_gpus

        return of_gpus.section(name, results)
    if name == "targets":
        from benchmarks import targets

        return targets.table(results)
    return _machines(results) if name == "machines" else table(name, results)


def print_tables(folder: Path, experiments: Iterable[str] = (*METRICS, *OTHERS)) -> None:
    """All tables that have something in them."""
    results = read_all(folder)
    for name in experiments:
        if (text := table(name, results)) != NOTHING:
            print(f"\n{name}\n\n{text}")


def _headings(metric: Metric) -> tuple[str, str]:
    unit = "" if metric.more_is_better else ", ms"
    return f"{metric.heading}{unit}: ours, theirs", "× better (95 % interval; least to most)"


def _cells(result: dict[str, Any], metric: Metric) -> tuple[str, str]:
    scale = 1 if metric.more_is_better else 1000
    medians = []
    for name in result["settings"]["order"]:
        values = [pair["runs"][name]["figures"].get(metric.key) for pair in result["pairs"]]
        known = [value for value in values if value is not None and value == value]
        medians.append(f"{statistics.median(known) * scale:,.1f}" if known else "–")
    found = ratios(result, metric)
    return ", ".join(medians), _ratio(estimate(found)) if found else "–"


def _ratio(found: Estimate) -> str:
    return (
        f"**{found.median:.2f}** ({found.low:.2f} to {found.high:.2f}; {found.least:.2f} to {found.most:.2f})"
    )


def title(result: dict[str, Any]) -> str:
    """Who is compared, with what."""
    settings = result["settings"]
    words = [settings["model"], settings.get("load", "")]
    if "clients" in settings:
        words.append(f"{settings['clients']} at once")
    if "batch" in settings:
        words.append(f"batch {settings['batch']}")
    ours, theirs = settings["order"]
    return f"{ours} / {theirs}: " + ", ".join(filter(None, words))


def order_of_rows(result: dict[str, Any]) -> tuple[Any, ...]:
    """By peer, model and load, and by numbers where their names would not do."""
    settings = result["settings"]
    size = settings.get("clients") or settings.get("batch") or 0
    return (settings["order"][1], settings["model"], settings.get("load", ""), size)


def _memory_table(results: Sequence[dict[str, Any]]) -> str:
    names = ("resident_bytes", "weights_bytes", "kv_bytes", "compute_bytes", "over_bytes")
    head = ["model", "resident, MB", "weights, MB", "KV cache, MB", "compute buffer, MB", "over these, MB"]
    figures = [(one["settings"]["model"], one["pairs"][0]["runs"]["ours"]["figures"]) for one in results]
    return lines(head, [[model, *(f"{one[name] / 1e6:,.0f}" for name in names)] for model, one in figures])


def _growth_table(results: Sequence[dict[str, Any]]) -> str:
    head = [
        "model",
        "requests answered",
        "resident after the first quarter, MB",
        "at the end, MB",
        "growth, MB",
    ]
    rows = []
    for one in results:
        figures = one["pairs"][0]["runs"]["ours"]["figures"]
        end, grown = figures["resident_bytes"][-1], figures["growth_bytes"]
        megabytes = [f"{value / 1e6:,.1f}" for value in (end - grown, end, grown)]
        rows.append([one["settings"]["model"], f"{figures['answered']:,}", *megabytes])
    return lines(head, rows)


def _trouble_table(results: Sequence[dict[str, Any]]) -> str:
    head = ["what happens", "times", "median, s", "longest, s"]
    rows = []
    for one in results:
        rounds = [pair["runs"]["ours"]["figures"] for pair in one["pairs"]]
        for kind in rounds[0]:
            seconds = [figures[kind] for figures in rounds]
            figures = (f"{value:.2f}" for value in (statistics.median(seconds), max(seconds)))
            rows.append([f"{one['settings']['model']}: {kind}", str(len(seconds)), *figures])
    return lines(head, rows)


def _machines(results: Sequence[dict[str, Any]]) -> str:
    seen: dict[str, list[str]] = {}
    mine = [one for one in results if not one["experiment"].startswith("gpu-")]
    for one in mine:
        settings, host = one["settings"], one["host"]
        packages = settings["packages"]
        line = (
            f"{settings['cpu']}, {settings['usable_cores']} cores, {host['memory_bytes'] / 1e9:.0f} GB, "
            f"{host['system']}; Python {settings['python']}, "
            f"llama-cpp-python {packages['llama-cpp-python']}; {settings['threads']} threads"
        )
        seen.setdefault(line, []).append(one["name"])
    parts = [f"- {line} ({len(names)} files)" for line, names in seen.items()]
    if older := [one["name"] for one in mine if one["settings"]["code"] != _newest_code(mine)]:
        parts.append(
            f"- with an earlier version of this server's code than the newest file: {', '.join(older)}"
        )
    return "\n".join(parts) or NOTHING


def _newest_code(results: Sequence[dict[str, Any]]) -> str:
    newest = max(results, key=lambda one: max((pair.get("began", "") for pair in one["pairs"]), default=""))
    return str(newest["settings"]["code"])


def lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, marks, *rows))


def main() -> int:
    text = README.read_text(encoding="utf-8")
    fresh = readme_with_tables(text, read_all(RESULTS))
    README.write_text(fresh, encoding="utf-8")
    print(f"{README.name}: {'new tables' if fresh != text else 'nothing new'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
