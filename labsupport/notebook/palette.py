"""The course's colours: told apart by readers with any kind of colour vision, and in grey print by lightness.

The eight colours are Okabe and Ito's ("Color Universal Design", 2008); `CYCLE` orders seven of them so that
neighbours also differ in lightness. A figure never says anything by colour alone: it also labels, hatches or
orders.
"""

from __future__ import annotations

from typing import Any

COLOURS = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
}

CYCLE = tuple(COLOURS[name] for name in ("blue", "orange", "green", "sky", "vermilion", "purple", "black"))

INK = "#222222"
GRID = "#D9D9D9"


def rc_parameters() -> dict[Any, Any]:
    """matplotlib settings of every figure: readable at 800 px, quiet axes, the colours above."""
    from cycler import cycler  # comes with matplotlib

    return {
        "axes.prop_cycle": cycler(color=CYCLE),
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlelocation": "left",
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "font.size": 11,
        "legend.frameon": False,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "figure.facecolor": "white",
        "hatch.linewidth": 0.8,
    }
