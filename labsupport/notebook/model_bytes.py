"""Explorer: how many bytes a model's weights take, against the memories they could go into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labsupport.errors import LabsupportError
from labsupport.notebook.explorer import Choice, Explorer, Slider
from labsupport.notebook.palette import COLOURS

BITS = {
    "float32 (32 bits)": 32.0,
    "bfloat16 (16 bits)": 16.0,
    "8-bit": 8.0,
    "4-bit": 4.0,
    "2-bit": 2.0,
}


def weight_bytes(*, parameters: float, bits_per_weight: float, overhead_percent: float) -> float:
    """Bytes = parameters × bits ÷ 8, plus a share for scales, padding and buffers."""
    return parameters * bits_per_weight / 8 * (1 + overhead_percent / 100)


def explore_model_bytes(memories: Mapping[str, float], *, start_billions: float = 8) -> Explorer:
    """Parameters × bits × overhead as one bar, beside `memories` (name → bytes) as marks.

    Raises `LabsupportError` when there is no memory to compare with.
    """
    if not memories or min(memories.values()) <= 0:
        raise LabsupportError(
            f"the memories {dict(memories)}", allowed="at least one, each with bytes above 0"
        )
    marks = dict(sorted(memories.items(), key=lambda item: item[1]))

    def draw(axes: Any, billions: float, kind: str, overhead: float) -> tuple[str, dict[str, list[object]]]:
        size = weight_bytes(parameters=billions * 1e9, bits_per_weight=BITS[kind], overhead_percent=overhead)
        fits = {name: size <= capacity for name, capacity in marks.items()}
        names = ["the weights", *marks]
        gigabytes = [size / 1e9, *(capacity / 1e9 for capacity in marks.values())]
        colours = [COLOURS["blue"], *(COLOURS["green" if fit else "orange"] for fit in fits.values())]
        verdicts = ["", *(": fits" if fit else ": too small" for fit in fits.values())]
        bars = axes.barh(names, gigabytes, color=colours, edgecolor="white")
        for bar, verdict in zip(bars, verdicts, strict=True):
            bar.set_hatch("//" if "small" in verdict else "")
        labels = [f"{number:,.3g} GB{verdict}" for number, verdict in zip(gigabytes, verdicts, strict=True)]
        axes.bar_label(bars, labels, padding=4, fontsize=10)
        axes.axvline(size / 1e9, color=COLOURS["black"], linewidth=1, linestyle="--")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.set_xlim(0.1, 40 * max(gigabytes))
        axes.set_xlabel("GB (10⁹ bytes, logarithmic)")
        axes.set_title(f"{billions:.3g} billion parameters, {kind}, {overhead:.0f}% overhead")
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        fitting = ", ".join(name for name, fit in fits.items() if fit) or "none of the memories shown"
        alt = (
            f"Bars: the weights of {billions:.3g} billion parameters in {kind} take {size / 1e9:,.3g} "
            f"gigabytes; they fit into {fitting}."
        )
        answers = ["–", *("yes" if fit else "no" for fit in fits.values())]
        return alt, {"what": [*names], "GB": [*gigabytes], "fits": [*answers]}

    return Explorer(
        "which memory does a model need?",
        draw,
        inches_tall=1.6 + 0.42 * (len(marks) + 1),
        billions=Slider("parameters (billions)", start_billions, -1, 3, 0.02, powers_of_ten=True),
        kind=Choice("stored as", tuple(BITS), "bfloat16 (16 bits)"),
        overhead=Slider("overhead (%)", 0, 0, 50, 1),
    )
