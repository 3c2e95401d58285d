"""What was to be reached, beside what was: computed from the results files, so that no verdict is typed.

A ratio reaches what is wanted when its median does and, where something is wanted of it too, the lower end of
its 95 % interval. A comparison that was never made is named; it is neither reached nor missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.bootstrap import estimate
from benchmarks.loads import CLIENTS, LOADS
from benchmarks.serving import MODELS
from benchmarks.tables import METRICS, lines, order_of_rows, ratios, title

Results = Sequence[dict[str, Any]]

_PEERS = {"llama-server": MODELS, "llama_cpp.server": MODELS, "transformers-serve": MODELS[:1]}
"""Peers, and the models that they can serve."""


class Ratio(NamedTuple):
    """The least that a ratio is to be, and what the lower end of its interval is to be above."""

    median: float
    low: float = 0.0

    def __str__(self) -> str:
        return f"{self.median:g} ×" + (f", interval above {self.low:g}" if self.low else "")


class Most(NamedTuple):
    """The most that a figure of ours is to be, in units of `scale`."""

    what: str
    experiment: str
    part: str
    most: float
    scale: float
    unit: str


_FASTER = Ratio(1.0, 0.97)
_RATIOS: tuple[tuple[str, dict[str, Any], dict[str, Ratio]], ...] = (
    (
        "serving",
        {"peer": "llama-server", "load": "shared", "clients": 8},
        {
            "output_tokens_per_second": Ratio(2.5),
            "ttft_p95": Ratio(5),
            "itl_p95": _FASTER,
            "e2e_p95": _FASTER,
        },
    ),
    (
        "serving",
        {"peer": "llama-server", "load": "mixed"},
        {
            "output_tokens_per_second": _FASTER,
            "ttft_p95": _FASTER,
            "itl_p95": Ratio(1.3),
            "e2e_p95": _FASTER,
        },
    ),
    ("serving", {"peer": "llama-server"}, {metric.key: _FASTER for metric in METRICS["serving"]}),
    (
        "serving",
        {"peer": "llama_cpp.server", "load": "plain", "clients": 16},
        {"output_tokens_per_second": Ratio(2.5)},
    ),
    ("prefix", {}, {"ttft_median": Ratio(10)}),
    ("batched-bench", {}, {"whole_run_tokens_per_second": Ratio(0.95)}),
    ("http-overhead", {}, {"whole_run_tokens_per_second": Ratio(0.95)}),
    ("crowd", {}, {"output_tokens_per_second": Ratio(0.9)}),
)
"""Which ratios are wanted of which comparisons: the first row whose settings a result has."""
_MOST = (
    Most("memory over weights, KV cache and compute buffer", "memory", "over_bytes", 150, 1e6, "MB"),
    Most("p99 of health in a crowd", "crowd", "health_p99", 100, 1e-3, "ms"),
    Most("longest until a slot is free again", "trouble", "leaves", 1, 1, "s"),
    Most("longest until callers are told of a crash", "trouble", "is told", 2, 1, "s"),
)
"""Bounds on the largest of our figures whose name has that part in it."""


def table(results: Results) -> str:
    """The Markdown, and what was never measured."""
    head = ["what", "wanted", "reached", "missed"]
    return "\n".join([lines(head, [*_ratio_rows(results), *_most_rows(results)]), "", *_never(results)])


def _ratio_rows(results: Results) -> Iterator[list[str]]:
    for experiment in METRICS:
        mine = [one for one in results if one["experiment"] == experiment and one["pairs"]]
        for one in sorted(mine, key=order_of_rows):
            found: dict[Ratio, tuple[list[str], list[str]]] = {}
            for metric in METRICS[experiment]:
                if (want := _wanted(one).get(metric.key)) and (values := ratios(one, metric)):
                    known = estimate(values)
                    is_missed = known.median < want.median or known.low <= want.low
                    interval = f" (from {known.low:.2f})" if want.low else ""
                    found.setdefault(want, ([], []))[is_missed].append(
                        f"{metric.heading} {known.median:.2f}{interval}"
                    )
            for want, sides in found.items():
                yield [title(one), str(want), *(", ".join(side) or "–" for side in sides)]


def _wanted(result: dict[str, Any]) -> dict[str, Ratio]:
    has = result["settings"] | {"peer": result["settings"]["order"][-1]}
    for experiment, settings, wanted in _RATIOS:
        if experiment == result["experiment"] and settings.items() <= has.items():
            return wanted
    return {}


def _most_rows(results: Results) -> Iterator[list[str]]:
    for what, experiment, part, most, scale, unit in _MOST:
        for one in results:
            if one["experiment"] == experiment and one["pairs"]:
                ours = one["settings"]["order"][0]
                worst = max(
                    value
                    for pair in one["pairs"]
                    for name, value in pair["runs"][ours]["figures"].items()
                    if part in name
                )
                sides = ["–", "–"]
                sides[worst / scale > most] = f"{worst / scale:,.2f} {unit}"
                yield [f"{one['settings']['model']}: {what}", f"at most {most:g} {unit}", *sides]


def _never(results: Results) -> Iterator[str]:
    """Comparisons of servers that no results file has, by peer."""
    made = {
        (settings["order"][-1], settings["model"], settings["load"], settings["clients"])
        for settings in (
            one["settings"] for one in results if one["experiment"] == "serving" and one["pairs"]
        )
    }
    for peer, models in _PEERS.items():
        missing = []
        for model in models:
            for load in LOADS:
                clients = [str(count) for count in CLIENTS if (peer, model, load, count) not in made]
                if clients:
                    missing.append(f"{model}, {load}, {', '.join(clients)}")
        if missing:
            yield f"- Never measured beside {peer}: {'; '.join(missing)} at once."
