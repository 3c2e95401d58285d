"""Explorer: multiply one number of a loaded model, and see how sure it stays of its own answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from labsupport.errors import LabsupportError
from labsupport.notebook.explorer import Choice, Explorer, Slider
from labsupport.notebook.palette import COLOURS

if TYPE_CHECKING:
    import torch

Place = tuple[str, tuple[int, ...]]


@contextmanager
def changed_weight(model: torch.nn.Module, place: Place, factor: float) -> Iterator[None]:
    """Inside the block the weight at `place` (tensor name, index) is multiplied by `factor`; then put back.

    Raises `LabsupportError` when the model has no such tensor or the tensor no such index.
    """
    import torch

    name, index = place
    parameters = dict(model.named_parameters())
    if name not in parameters:
        raise LabsupportError(
            f"no tensor {name!r}", allowed=f"one of the {len(parameters)} names of the model"
        )
    shape = tuple(parameters[name].shape)
    if len(index) != len(shape) or not all(0 <= i < size for i, size in zip(index, shape, strict=True)):
        raise LabsupportError(f"index {index} in {name}", allowed=f"an index into shape {shape}")
    with torch.no_grad():
        original = parameters[name][index].clone()
        parameters[name][index] = original * factor
    try:
        yield
    finally:
        with torch.no_grad():
            parameters[name][index] = original


def answer_probabilities(model: Any, token_ids: Sequence[int], answer_start: int) -> list[float]:
    """The model's probability of each token from `answer_start` on, given all before it (one forward pass).

    A probability that is not a number counts as 0: the model no longer says anything.
    """
    import torch

    ids = torch.tensor([list(token_ids)])
    with torch.no_grad():
        logits = model(ids).logits[0, answer_start - 1 : -1].float()
    chosen = torch.softmax(logits, dim=-1).gather(1, ids[0, answer_start:, None])[:, 0]
    return torch.nan_to_num(chosen, nan=0.0).tolist()


def explore_one_weight(
    model: Any, token_ids: Sequence[int], answer_start: int, words: Sequence[str], places: Mapping[str, Place]
) -> Explorer:
    """Choose one of `places` (label → tensor and index) and a factor; see each answer token's probability.

    `words` are the texts of the tokens from `answer_start` on.
    """
    before = answer_probabilities(model, token_ids, answer_start)

    def draw(axes: Any, place: str, factor: float) -> tuple[str, dict[str, list[object]]]:
        with changed_weight(model, places[place], factor):
            after = answer_probabilities(model, token_ids, answer_start)
        positions = range(len(words))
        axes.bar(
            positions, before, width=0.9, facecolor="none", edgecolor=COLOURS["black"], label="as trained"
        )
        axes.bar(positions, after, width=0.6, color=COLOURS["blue"], label=f"one weight × {factor:,.4g}")
        axes.set_xticks(list(positions), [word.strip() or "␣" for word in words], rotation=90, fontsize=8)
        axes.set_ylim(0, 1.05)
        axes.set_ylabel("probability")
        axes.grid(axis="x", visible=False)
        axes.set_title(f"{places[place][0]}{list(places[place][1])}", fontsize=10)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=2)
        mean_before, mean_after = sum(before) / len(before), sum(after) / len(after)
        alt = (
            f"Bars for the {len(words)} tokens of the answer: with {place} multiplied by {factor:,.4g}, "
            f"their mean probability goes from {mean_before:.2f} to {mean_after:.2f}."
        )
        return alt, {"token": list(words), "as trained": list(before), "now": list(after)}

    return Explorer(
        "one number among millions: does it matter?",
        draw,
        inches_tall=3.8,
        place=Choice("which weight", tuple(places), next(iter(places))),
        factor=Slider("multiply it by", 1, 0, 4, 0.1, powers_of_ten=True),
    )
