"""An explorer's figure follows its controls, says what it shows, and leaves a picture on a saved page."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from labsupport.errors import LabsupportError
from labsupport.notebook.answer_time import answer_seconds, explore_answer_time
from labsupport.notebook.explorer import MOST_CONTROLS, Choice, Explorer, ExplorerError, Slider
from labsupport.notebook.figures import PIXELS_WIDE
from labsupport.notebook.model_bytes import explore_model_bytes, weight_bytes
from labsupport.notebook.one_weight import answer_probabilities, changed_weight, explore_one_weight


def tiny_model():
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=50,
    )
    return LlamaForCausalLM(config).eval()


MODEL = tiny_model()
PLACES = {
    "a final norm weight": ("model.norm.weight", (3,)),
    "an MLP weight": ("model.layers.0.mlp.up_proj.weight", (1, 2)),
}


def explorers():
    return [
        explore_answer_time(),
        explore_model_bytes({"laptop": 16e9, "server GPU": 80e9}),
        explore_one_weight(MODEL, list(range(12)), 8, ["a", "b", "c", "d"], PLACES),
    ]


@pytest.mark.parametrize("explorer", explorers(), ids=lambda explorer: explorer.title)
def test_every_control_redraws_the_figure_and_its_words(explorer):
    knobs = [
        child for child in explorer.widget().children if hasattr(child, "description") and child.description
    ]
    screen = explorer.widget().children[-1]
    assert len(knobs) == len(explorer.controls) <= MOST_CONTROLS
    for knob in reversed(knobs):
        before = screen.value
        knob.value = knob.options[-1] if hasattr(knob, "options") else knob.max
        assert screen.value != before, knob.description
        assert re.search(r'alt="([^"]{30,})"', screen.value)
        assert "<table>" in screen.value


@pytest.mark.parametrize("explorer", explorers(), ids=lambda explorer: explorer.title)
def test_a_page_that_nobody_runs_shows_the_first_figure(explorer):
    bundle, metadata = explorer._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"} <= set(bundle)
    assert explorer.title in bundle["text/plain"]
    assert metadata["image/png"]["width"] == PIXELS_WIDE


def test_a_fourth_control_is_refused():
    knobs = {f"knob_{n}": Slider("x", 1, 0, 2, 1) for n in range(4)}
    with pytest.raises(ExplorerError, match="4 controls"):
        Explorer("too much", lambda axes, **values: ("", {}), **knobs)


def test_a_mistake_while_drawing_is_told_on_the_page():
    def draw(axes, size):
        if size == "bad":
            raise LabsupportError("this size does not exist", allowed="good")
        return "one bar of the size that was chosen", {"size": [1]}

    explorer = Explorer("sizes", draw, size=Choice("size", ("good", "bad"), "good"))
    knob, screen = explorer.widget().children[1:]
    knob.value = "bad"
    assert 'role="alert"' in screen.value
    assert "this size does not exist" in screen.value
    knob.value = "good"
    assert "<img" in screen.value


def test_weight_bytes_by_hand():
    assert weight_bytes(parameters=7e9, bits_per_weight=4, overhead_percent=0) == 3.5e9
    assert weight_bytes(parameters=8e9, bits_per_weight=16, overhead_percent=10) == pytest.approx(17.6e9)


def test_a_model_fits_exactly_where_the_picture_says_so():
    picture = explore_model_bytes({"small": 15e9, "large": 17e9}).picture(billions=8.0)
    assert "fit into large" in picture.alt
    assert "<td>small</td><td>15</td><td>no</td>" in picture.table
    assert "none of the memories" in explore_model_bytes({"small": 1e9}).picture().alt


def test_bytes_without_a_memory_to_compare_are_refused():
    with pytest.raises(LabsupportError, match="memories"):
        explore_model_bytes({})


def test_streaming_moves_the_first_word_and_not_the_last():
    first, last = answer_seconds(answer_tokens=101, tokens_per_second=50, first_token_seconds=0.3)
    assert (first, last) == (0.3, 2.3)
    picture = explore_answer_time(tokens_per_second=50, first_token_seconds=0.3).picture(answer_tokens=101)
    assert "complete after 2.30 seconds; streamed, its first word shows after 0.30 seconds" in picture.alt


def test_measurements_outside_the_sliders_are_brought_to_their_ends():
    explorer = explore_answer_time(tokens_per_second=99_999, first_token_seconds=1e-6)
    assert explorer.values() == {"answer_tokens": 200, "rate": 10_000, "first": 5}
    explorer.widget()


def test_the_probabilities_are_those_of_the_models_own_softmax():
    ids = [5, 9, 2, 7, 7]
    probabilities = answer_probabilities(MODEL, ids, 3)
    with torch.no_grad():
        softmax = MODEL(torch.tensor([ids])).logits[0].softmax(-1)
    assert probabilities == pytest.approx([softmax[2, 7].item(), softmax[3, 7].item()])


def test_a_changed_weight_changes_the_model_and_is_put_back():
    ids = list(range(12))
    before = answer_probabilities(MODEL, ids, 8)
    place = PLACES["a final norm weight"]
    with changed_weight(MODEL, place, 100.0):
        assert answer_probabilities(MODEL, ids, 8) != pytest.approx(before)
    assert answer_probabilities(MODEL, ids, 8) == before
    with pytest.raises(ZeroDivisionError), changed_weight(MODEL, place, 100.0):
        1 / 0  # noqa: B018
    assert answer_probabilities(MODEL, ids, 8) == before


def test_a_model_that_no_longer_gives_numbers_has_probability_zero():
    with changed_weight(MODEL, PLACES["a final norm weight"], float("nan")):
        assert answer_probabilities(MODEL, list(range(12)), 8) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "place", [("model.no_such", (0,)), ("model.norm.weight", (0, 0)), ("model.norm.weight", (32,))]
)
def test_a_weight_that_does_not_exist_is_named(place):
    with pytest.raises(LabsupportError, match=r"no tensor|index"), changed_weight(MODEL, place, 2.0):
        pass
