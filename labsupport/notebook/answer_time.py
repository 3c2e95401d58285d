"""Explorer: where the seconds of one answer go, and when its reader sees the first word."""

from __future__ import annotations

from typing import Any

from labsupport.notebook.explorer import Explorer, Slider
from labsupport.notebook.palette import COLOURS


def answer_seconds(
    *, answer_tokens: float, tokens_per_second: float, first_token_seconds: float
) -> tuple[float, float]:
    """When a reader sees the first and the last word, in seconds after sending.

    Time to first token, then one decode step per further token: E2E = TTFT + (tokens − 1) / rate.
    """
    return first_token_seconds, first_token_seconds + (answer_tokens - 1) / tokens_per_second


def explore_answer_time(*, tokens_per_second: float = 50, first_token_seconds: float = 0.3) -> Explorer:
    """Length, speed and first-token time against what the caller waits for, streamed and not.

    Start it with your own measurements of one stream.
    """

    def draw(
        axes: Any, answer_tokens: float, rate: float, first: float
    ) -> tuple[str, dict[str, list[object]]]:
        shown, done = answer_seconds(
            answer_tokens=answer_tokens, tokens_per_second=rate, first_token_seconds=first / 1000
        )
        names: list[object] = ["streamed", "not streamed"]
        axes.barh(
            names,
            [shown, done],
            color=COLOURS["blue"],
            hatch="//",
            edgecolor="white",
            label="nothing to read",
        )
        axes.barh(names[:1], [done - shown], left=[shown], color=COLOURS["orange"], label="words arrive")
        for row, seconds in enumerate((shown, done)):
            axes.text(seconds, row, f" first word after {seconds:.2f} s", va="center", ha="left", fontsize=10,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
        axes.set_xlim(0, done * 1.35)
        axes.set_xlabel("seconds after the request was sent")
        axes.set_title(f"{answer_tokens:.0f} tokens at {rate:.0f} tokens/s")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2)
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        alt = (
            f"Two bars. An answer of {answer_tokens:.0f} tokens at {rate:.0f} tokens per second is complete "
            f"after {done:.2f} seconds; streamed, its first word shows after {shown:.2f} seconds."
        )
        return alt, {"way": names, "first word (s)": [shown, done], "last word (s)": [done, done]}

    return Explorer(
        "when does the first word arrive, and when the last?",
        draw,
        answer_tokens=Slider("answer length (tokens)", 200, 10, 2000, 10),
        rate=Slider("speed (tokens/s)", float(max(1, min(10_000, round(tokens_per_second)))), 1, 10_000, 1),
        first=Slider(
            "time to first token (ms)",
            float(max(5, min(5000, round(first_token_seconds * 1000 / 5) * 5))),
            5,
            5000,
            5,
        ),
    )
