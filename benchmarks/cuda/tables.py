"""The tables of a GPU's results. Right means: every figure is computed from the files, the limit too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cuda.limit import limit_tokens_per_second, mean_context
from benchmarks.results import read_all
from benchmarks.tables import NOTHING, lines
from labsupport.anatomy import ModelShape

Results = Sequence[dict[str, Any]]

_PEERS = (("generate", "generate()"), ("continuous", "continuous batching"))
_BF16_TARGET, _GENERATE_TARGET = 0.6, 2.0


def section(name: str, results: Results) -> str:
    """What stands between one pair of marks of the README: `gpu-machines`, `gpu-tests`, `gpu-memory`, …"""
    makers = {
        "gpu-machines": _machines,
        "gpu-tests": _tests,
        "gpu-memory": _memory,
        "gpu-decode": _decode,
        "gpu-targets": _targets,
    }
    return (
        makers[name]([one for one in results if one["experiment"].startswith("gpu-") and one["pairs"]])
        or NOTHING
    )


def print_tables(folder: Path) -> None:
    """All that have something in them."""
    results = read_all(folder)
    for name in ("gpu-tests", "gpu-memory", "gpu-decode", "gpu-targets"):
        if (text := section(name, results)) != NOTHING:
            print(f"\n{name}\n\n{text}")


def _of(experiment: str, results: Results) -> list[dict[str, Any]]:
    return [one for one in results if one["experiment"] == experiment]


def _machines(results: Results) -> str:
    seen: dict[str, list[str]] = {}
    for one in results:
        settings = one["settings"]
        gpu, packages = settings["gpu"], settings["packages"]
        line = (
            f"{gpu['name']}, {gpu.get('memory_bytes', 0) / 1e9:.0f} GB, driver {gpu.get('driver', '–')}; "
            f"{settings['cpu']}, {settings['usable_cores']} cores; Python {settings['python']}, "
            + ", ".join(
                f"{name} {version}" for name, version in packages.items() if name != "llama-cpp-python"
            )
        )
        seen.setdefault(line, []).append(one["name"])
    parts = [f"- {line} ({len(names)} files)" for line, names in seen.items()]
    for one in _of("gpu-bandwidth", results):
        figures = one["pairs"][-1]["figures"]
        read, copy = (figures[f"{kind}_bytes_per_second"] / 1e9 for kind in ("read", "copy"))
        parts.append(
            f"- memory bandwidth: {read:,.0f} GB/s reading, {copy:,.0f} GB/s copying (read and written)"
        )
    return "\n".join(parts)


def _tests(results: Results) -> str:
    rows = []
    for one in _of("gpu-tests", results):
        entry = one["pairs"][-1]
        bad = [*entry["failed"], *entry["broken"]]
        passed = entry["tests"] - len(bad) - len(entry["skipped"])
        rows.append(
            [one["settings"]["tests"], str(passed), str(len(entry["skipped"])), ", ".join(bad) or "none"]
        )
    return lines(["tests", "passed", "skipped", "failed"], rows) if rows else ""


def _memory(results: Results) -> str:
    rows = []
    for one in _of("gpu-memory", results):
        figures = one["pairs"][-1]["figures"]
        cells = [f"{one['settings']['shape']}, {one['settings']['quantization']}"]
        for part in ("weights", "kv"):
            allocated, expected = (figures[f"{part}_{kind}_bytes"] for kind in ("allocated", "expected"))
            cells += [f"{allocated / 1e9:.3f}", f"{expected / 1e9:.3f}", f"{allocated / expected - 1:+.1%}"]
        rows.append(cells)
    head = ["model", "weights, GB", "by the anatomy", "", "KV cache, GB", "by the anatomy", ""]
    return lines(head, rows) if rows else ""


def _decode(results: Results) -> str:
    head = ["model, at once", "limit", "ours", "of the limit"]
    head += [cell for _, title in _PEERS for cell in (title, "ours ×")]
    rows = []
    for cell in cells(results):
        row = [f"{cell['shape']}, {cell['quantization']}, {cell['sequences']}", _rate(cell.get("limit"))]
        row += [_rate(cell.get("ours")), _share(cell.get("share"))]
        for name, _ in _PEERS:
            row += [_rate(cell.get(name)), _times(cell.get(f"times_{name}"))]
        rows.append(row)
    return lines(head, rows) if rows else ""


def _targets(results: Results) -> str:
    """Whether what the project wants to reach is reached."""
    found = {(cell["quantization"], cell["sequences"]): cell for cell in cells(results)}
    share = found.get(("bf16", 1), {}).get("share")
    times = found.get(("bf16", 32), {}).get("times_generate")
    said = []
    if share is not None:
        verdict = "reached" if share >= _BF16_TARGET else "missed"
        said.append(
            f"- bf16, one sequence: {share:.0%} of the bandwidth limit; wanted {_BF16_TARGET:.0%}: {verdict}."
        )
    if times is not None:
        verdict = "reached" if times >= _GENERATE_TARGET else "missed"
        said.append(
            f"- bf16, 32 sequences: {times:.2f} × `generate()`; wanted {_GENERATE_TARGET:g} ×: {verdict}."
        )
    return "\n".join(said)


def cells(results: Results) -> list[dict[str, Any]]:
    """Decoded tokens a second by shape, quantization and number of sequences, the limit, and the ratios.

    share: ours of the limit. times_…: ours over a peer's, of the whole run, prompts included.
    """
    bandwidth = {
        one["settings"]["gpu"]["name"]: one["pairs"][-1]["figures"]["bandwidth_bytes_per_second"]
        for one in _of("gpu-bandwidth", results)
    }
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    whole: dict[tuple[Any, ...], dict[str, float]] = {}
    for one in _of("gpu-decode", results):
        settings = one["settings"]
        for entry in one["pairs"]:
            key = (settings["shape"], settings["quantization"], entry["sequences"])
            cell = found.setdefault(key, dict(zip(("shape", "quantization", "sequences"), key, strict=True)))
            whole.setdefault(key, {})[settings["contender"]] = entry["figures"]["whole_run_tokens_per_second"]
            cell[settings["contender"]] = entry["figures"].get("decode_tokens_per_second")
            if settings["gpu"]["name"] in bandwidth:
                cell["limit"] = limit_tokens_per_second(
                    ModelShape.from_config(settings["config"]),
                    settings["quantization"],
                    sequences=entry["sequences"],
                    context_tokens=mean_context(settings["prompt_tokens"], settings["new_tokens"]),
                    bandwidth_bytes_per_second=bandwidth[settings["gpu"]["name"]],
                )
    for key, cell in found.items():
        if cell.get("ours") and cell.get("limit"):
            cell["share"] = cell["ours"] / cell["limit"]
        for peer, _ in _PEERS:
            if {"ours", peer} <= whole[key].keys():
                cell[f"times_{peer}"] = whole[key]["ours"] / whole[key][peer]
    order = ("fp32", "bf16", "int8", "nf4", "q4_k_m")
    return [
        found[key]
        for key in sorted(
            found, key=lambda key: (key[0], order.index(key[1]) if key[1] in order else 9, key[2])
        )
    ]


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"**{value:.0%}**"


def _times(value: float | None) -> str:
    return "–" if value is None else f"**{value:.2f}**"
