"""The bundled weights are those that the record measured, and they still do what the record says."""

from __future__ import annotations

import hashlib
import json
from math import sqrt
from pathlib import Path

import pytest

from labsupport.errors import LabsupportError
from labsupport.evaluation.exact_match import Answerer
from labsupport.pocket import publish, report
from labsupport.pocket.card import write_card
from labsupport.pocket.report import EXERCISES, QUANTS, Exercise

WEIGHTS = Path(report.__file__).with_name("weights")
RECORD = json.loads(report.RECORD.read_text(encoding="utf-8"))


def test_the_weights_are_the_ones_that_were_measured() -> None:
    digest = hashlib.sha256((WEIGHTS / "model.safetensors").read_bytes()).hexdigest()
    assert digest == RECORD["weights_sha256"]
    lines = (WEIGHTS / publish.CHECKSUMS).read_text(encoding="utf-8").split("\n")
    assert f"{digest}  model.safetensors" in lines
    assert publish.count_parameters(WEIGHTS) == RECORD["parameters"]
    assert (WEIGHTS / "model.safetensors").stat().st_size < 16_000_000


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    from labsupport.evaluation.answerers import checkpoint_answerer

    return checkpoint_answerer(WEIGHTS)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_a_sample_scores_as_the_record_says(exercise: Exercise, answerer: Answerer) -> None:
    """Other samples than the record's; the bound is four standard errors and one answer below its share."""
    count = 8 if exercise.name == "recall-64" else 32
    recorded = RECORD["exact_match"]["bf16"][exercise.name]["share"]
    bound = recorded - 4 * sqrt(recorded * (1 - recorded) / count) - 1 / count
    [(_, match)] = report.results(answerer, seed=77, samples=count, exercises=(exercise,))
    assert match.share >= bound, match.misses[:3]


def test_every_quantization_is_in_the_record_with_its_samples() -> None:
    for quant in QUANTS:
        figures = RECORD["exact_match"][quant]
        assert set(figures) == {exercise.name for exercise in EXERCISES}
        for found in figures.values():
            assert 0 <= found["right"] <= RECORD["samples"]
            assert found["share"] == pytest.approx(found["right"] / RECORD["samples"])


def test_the_card_says_what_the_record_says(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(WEIGHTS / name)
    curve = json.loads(publish.CURVE.read_text(encoding="utf-8"))
    card = write_card(tmp_path, RECORD, curve).read_text(encoding="utf-8")
    assert card == (WEIGHTS / "README.md").read_text(encoding="utf-8")
    for exercise in EXERCISES:
        assert f"| {exercise.name} | {exercise.target:.2f} |" in card


def test_the_loss_curve_falls() -> None:
    curve = json.loads(publish.CURVE.read_text(encoding="utf-8"))
    assert [point["step"] for point in curve] == list(range(1, len(curve) + 1))
    losses = [point["loss"] for point in curve]
    assert sum(losses[-20:]) < 0.4 * sum(losses[30:50])


def test_an_unknown_quantization_or_no_samples_is_refused() -> None:
    with pytest.raises(LabsupportError, match="q8_0, q4_k_m, q2_k"):
        report.evaluate("int3")
    with pytest.raises(LabsupportError, match="0 samples"):
        report.evaluate("bf16", samples=0)
