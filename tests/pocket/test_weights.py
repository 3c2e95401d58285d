"""The bundled weights are those that the record measured, and they still do what the record says."""

from __future__ import annotations

import hashlib
import json
from math import sqrt
from pathlib import Path

import pytest

from labsupport.cli import main
from labsupport.errors import LabsupportError
from labsupport.evaluation.exact_match import Answerer
from labsupport.pocket import publish, report
from labsupport.pocket.card import write_card
from labsupport.pocket.curriculum import Curriculum
from labsupport.pocket.memory_check import memory_check
from labsupport.pocket.report import EXERCISES, QUANTS, Exercise

WEIGHTS = report.WEIGHTS
RECORD = json.loads((WEIGHTS / publish.RECORD).read_text(encoding="utf-8"))
CURVE = json.loads((WEIGHTS / publish.CURVE).read_text(encoding="utf-8"))


def test_the_weights_are_the_ones_that_were_measured() -> None:
    digest = hashlib.sha256((WEIGHTS / "model.safetensors").read_bytes()).hexdigest()
    assert digest == RECORD["weights_sha256"]
    lines = (WEIGHTS / publish.CHECKSUMS).read_text(encoding="utf-8").split("\n")
    assert f"{digest}  model.safetensors" in lines
    assert publish.count_parameters(WEIGHTS) == RECORD["parameters"]
    assert (WEIGHTS / "model.safetensors").stat().st_size < 16_000_000


# What these weights miss. Strict: as soon as one is reached, this test says so, and it must leave the list.
MISSED = ("summarize",)


@pytest.mark.parametrize(
    "exercise",
    [
        pytest.param(
            each,
            id=each.name,
            marks=[pytest.mark.xfail(strict=True, reason="the bundled weights miss the aim; see their card")]
            if each.name in MISSED
            else [],
        )
        for each in EXERCISES
    ],
)
def test_the_weights_reach_what_the_course_needs(exercise: Exercise) -> None:
    assert RECORD["exact_match"]["bf16"][exercise.name]["share"] >= exercise.target


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    from labsupport.evaluation.answerers import checkpoint_answerer

    return checkpoint_answerer(WEIGHTS)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_a_sample_scores_as_the_record_says(exercise: Exercise, answerer: Answerer) -> None:
    """Other samples than the record's; the bound is four standard errors and one answer below its share."""
    count = 16 if exercise.name == "recall-64" else 32
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
    card = write_card(tmp_path, RECORD, CURVE).read_text(encoding="utf-8")
    assert card == (WEIGHTS / "README.md").read_text(encoding="utf-8")
    for exercise in EXERCISES:
        assert f"| {exercise.name} | {exercise.target:.2f} |" in card


def test_the_loss_curve_falls() -> None:
    assert [point["step"] for point in CURVE] == list(range(1, len(CURVE) + 1))
    losses = [point["loss"] for point in CURVE]
    assert sum(losses[-20:]) < 0.4 * sum(losses[30:50])


def test_an_unknown_quantization_or_no_samples_is_refused() -> None:
    with pytest.raises(LabsupportError, match="q8_0, q4_k_m, q2_k"):
        report.evaluate("int3")
    with pytest.raises(LabsupportError, match="0 samples"):
        report.evaluate("bf16", samples=0)


def test_the_command_measures_a_quantized_model_and_names_seed_and_samples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        main(["models", "evaluate", "pocket", "--quant", "q4_k_m", "--seed", "3", "--samples", "2", "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["quant"], found["seed"], found["samples"]) == ("q4_k_m", 3, 2)
    assert found["exact_match"].keys() == {exercise.name for exercise in EXERCISES}
    assert found["exact_match"]["glossary"]["right"] == 2


def test_the_memory_check_knows_training_text_and_a_neighbour_cannot_summarize() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    found = memory_check(Curriculum(), steps=3, training_seed=1, tokenizer=tokenizer, seed=3, samples=4)
    assert found["summarize"]["nearest_neighbour"] == 0.0
    assert 0.0 <= found["summarize"]["prompt_8gram_overlap"] < 0.5
    recorded = RECORD["memory"]["exercises"]
    assert recorded.keys() == found.keys()


def test_new_weights_take_the_place_of_the_old_only_when_they_have_been_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from labsupport.pocket import __main__ as making

    bundled, out = tmp_path / "bundled", tmp_path / "out"
    bundled.mkdir()
    (bundled / "model.safetensors").write_text("old")
    (out / "weights").mkdir(parents=True)
    (out / "weights" / "model.safetensors").write_text("new")
    (out / "loss_curve.json").write_text("[]")
    monkeypatch.setattr(making, "WEIGHTS", bundled)
    monkeypatch.setattr(making.subprocess, "run", lambda *_, **__: None)  # the training has been
    monkeypatch.setattr(sys, "argv", ["pocket", "--out", str(out)])

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(making, "publish", full_disk)
    with pytest.raises(OSError, match="No space"):
        making.main()
    assert (bundled / "model.safetensors").read_text() == "old"

    monkeypatch.setattr(making, "publish", lambda *_, **__: None)
    making.main()
    assert (bundled / "model.safetensors").read_text() == "new"
    assert [file.name for file in tmp_path.iterdir() if "bundled" in file.name] == ["bundled"]
