"""The datasheet as one picture: what the computer is, how fast it reads, how fast a model could decode."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import TYPE_CHECKING

from labsupport.errors import LabsupportError
from labsupport.machine.sheet import TIERS, Datasheet
from labsupport.machine.sheet_text import facts, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
# Two of Okabe and Ito's colours, which everybody tells apart; hatching says "not measured" without colour.
MEASURED, PRINTED = "#0072B2", "#E69F00"
GB = 10**9


class PictureNotWritable(LabsupportError):
    """A file that no picture can be written to."""


def writable(file: Path) -> None:
    """Raise PictureNotWritable unless a picture can be written to `file`. A file that is there stays so."""
    if file.suffix.lower() not in FORMATS:
        raise PictureNotWritable(f"no picture can be written to {file.name}", allowed=", ".join(FORMATS))
    try:
        file.open("ab").close()
    except OSError as error:
        problem = f"{file} cannot be written: {error.strerror}"
        raise PictureNotWritable(
            problem, remedy="name a file in a folder that exists and is yours"
        ) from error


def save(sheet: Datasheet, file: Path) -> None:
    """Draw the sheet into `file`, in the format that its ending names. Raises PictureNotWritable."""
    writable(file)
    draw(sheet).savefig(file, dpi=120)


def mime_bundle(sheet: Datasheet) -> dict[str, object]:
    """The sheet as Jupyter shows it: the picture with its alt text, its numbers folded away below it."""
    buffer = io.BytesIO()
    draw(sheet).savefig(buffer, format="png", dpi=120)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    source = f"data:image/png;base64,{encoded}"
    page = f"""<img style="max-width: 100%;" alt="{html.escape(alt(sheet))}" src="{source}">
<details><summary>All numbers of this datasheet</summary><pre>{html.escape(text(sheet))}</pre></details>"""
    return {"text/html": page, "image/png": encoded, "text/plain": text(sheet)}


def alt(sheet: Datasheet) -> str:
    """What the picture shows, in one sentence."""
    rates = ", ".join(f"{one.name} {one.median:.3g} {one.unit}" for one in sheet.measurements)
    tokens = ", ".join(f"{one.model} {one.tokens_per_second:.3g}" for one in sheet.bounds)
    return f"Datasheet of {sheet.machine.cpu}: {rates}; at most this many tokens per second: {tokens}"


def draw(sheet: Datasheet) -> Figure:
    """One page of 10 × 6.4 inches."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(10, 6.4), layout="constrained", facecolor="white")
    # Two layouts: the facts need the whole width, and not the margin that the bars' long names take.
    grid = page.add_gridspec(2, 1, height_ratios=(1, 1.5))
    _facts(page.add_subfigure(grid[0]).add_subplot(), sheet)
    left, right = page.add_subfigure(grid[1]).subplots(1, 2)
    _bandwidths(left, sheet)
    _tokens(right, sheet)
    return page


def _facts(axes: Axes, sheet: Datasheet) -> None:
    axes.axis("off")
    axes.set_title("What this computer can do", loc="left", fontweight="bold")
    products = [one for one in sheet.measurements if one.unit == "GFLOP/s"]
    lines = facts(sheet) | {one.name: f"{one.median:,.0f} GFLOP/s" for one in products}
    lines["tier"] = TIERS[sheet.machine.tier]
    heights = [0.95 - row * 0.95 / len(lines) for row in range(len(lines))]
    labels = [
        axes.text(0, height, label, va="top", color="#555555", transform=axes.transAxes)
        for label, height in zip(lines, heights, strict=True)
    ]
    longest = max(labels, key=lambda one: len(one.get_text()))
    for value, height in zip(lines.values(), heights, strict=True):
        # To the right of the longest label, wherever its font makes that end.
        side = (longest, "axes fraction")
        axes.annotate(value, (1, height), (16, 0), side, "offset points", va="top")


def _bandwidths(axes: Axes, sheet: Datasheet) -> None:
    measured = [one for one in sheet.measurements if one.unit == "GB/s"]
    names = [one.name for one in measured] + [one.name for one in sheet.vendors]
    rates = [one.median for one in measured]
    rates += [one.bandwidth_bytes_per_second / GB for one in sheet.vendors]
    bars = axes.barh(names, rates, color=[MEASURED] * len(measured) + [PRINTED] * len(sheet.vendors))
    for bar in bars[len(measured) :]:
        bar.set_hatch("//")
        bar.set_edgecolor("white")
    for row, one in enumerate(measured):
        axes.plot((min(one.samples), max(one.samples)), (row, row), color="black", linewidth=1)
    ends = [max(one.samples) for one in measured] + rates[len(measured) :]
    _finish(axes, "Bandwidth, GB/s (hatched: vendors' sheets)", ends, [_short(rate) for rate in rates])


def _tokens(axes: Axes, sheet: Datasheet) -> None:
    names = [f"{one.model}\n{one.quantization}" for one in sheet.bounds]
    rates = [one.tokens_per_second for one in sheet.bounds]
    axes.barh(names, rates, color=MEASURED)
    labels = [
        _short(rate) + ("" if one.fits else ", does not fit")
        for rate, one in zip(rates, sheet.bounds, strict=True)
    ]
    _finish(axes, "Tokens/s at most, one sequence", rates, labels)


def _short(rate: float) -> str:
    """Three digits, in plain decimals: 0.224, 6.67, 1,008."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _finish(axes: Axes, title: str, ends: list[float], labels: list[str]) -> None:
    """Title, scale, and each row's label to the right of all that is drawn in the row, which ends there."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xscale("log")
    for row, (end, label) in enumerate(zip(ends, labels, strict=True)):
        axes.annotate(label, (end, row), xytext=(4, 0), textcoords="offset points", va="center")
    axes.margins(x=0.35)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
