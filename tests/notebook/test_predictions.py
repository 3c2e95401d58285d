"""A guess counts only if it was locked before the answer; a page without a reader goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labsupport.anatomy.spec_sheets import devices_of_tier
from labsupport.errors import LabsupportError
from labsupport.notebook.predictions import PredictionError, forget, history, locked, predict, score
from labsupport.notebook.reader_log import LogUnwritableError, log_path
from labsupport.notebook.tier_range import decode_range


def children_of(widget):
    """Every widget below this one."""
    for child in getattr(widget, "children", ()):
        yield child
        yield from children_of(child)


def field_button_status(prediction):
    widgets = list(children_of(prediction.widget()))
    field = next(w for w in widgets if type(w).__name__ == "Text")
    button = next(w for w in widgets if type(w).__name__ == "Button")
    return field, button, [w for w in widgets if type(w).__name__ == "HTML"][-1]


def test_without_a_reader_the_score_says_no_prediction_and_goes_on():
    predict("size", "How many MB?", unit="MB")
    result = score("size", 12.6, unit="MB")
    assert result.ratio is None
    assert result._repr_mimebundle_()["text/plain"] == "You predicted: no prediction\nMeasured: 12.6 MB"


def test_a_locked_guess_is_scored_as_measured_over_predicted():
    predict("size", "How many MB?", unit="MB", guess=6.3)
    result = score("size", 12.6, unit="MB")
    assert result.ratio == pytest.approx(2.0)
    assert "2.0× more than you predicted: the right size" in str(result.lines())


@pytest.mark.parametrize(
    ("guess", "words"),
    [(10, "within a tenth"), (4, "right order of magnitude"), (25, "2.5× less"), (0.01, "1,000× more")],
)
def test_the_verdict_tells_how_far_off_the_guess_was(guess, words):
    predict("n", "?", unit="GB", guess=guess)
    assert words in score("n", 10, unit="GB").verdict


def test_a_locked_guess_does_not_change():
    predict("size", "?", unit="MB", guess=5)
    predict("size", "?", unit="MB", guess=500)
    assert locked("size").value == 5


def test_a_forgotten_guess_can_be_made_again_but_counts_as_late_after_a_measurement():
    predict("size", "?", unit="MB", guess=5)
    assert not locked("size").late
    score("size", 12, unit="MB")
    forget("size")
    predict("size", "?", unit="MB", guess=12)
    assert locked("size").late
    assert "locked late" in str(score("size", 12, unit="MB").lines())


def test_the_limit_stands_beside_the_measurement():
    lines = dict(score("rate", 50, unit="tokens/s", limit=200, limit_name="Memory bandwidth allows").lines())
    assert lines["Memory bandwidth allows"] == "200 tokens/s (measured is 25% of it)"


@pytest.mark.parametrize("tier", ["cpu", "apple", "gpu"])
def test_the_range_of_the_tier_stands_beside_the_measurement(tier):
    slow, *_, fast = devices_of_tier(tier)
    reach = decode_range(tier, bytes_read=1e9)
    assert (reach.low, reach.high) == (
        slow.bandwidth_bytes_per_second / 1e9,
        fast.bandwidth_bytes_per_second / 1e9,
    )
    label, text = score("rate", 5, unit="tokens/s", tier=reach).lines()[-1]
    assert tier in label
    assert slow.name in text
    assert fast.name in text


@pytest.mark.parametrize(("tier", "bytes_read"), [("abacus", 1e9), ("cpu", 0)])
def test_a_range_that_cannot_be_computed_is_refused(tier, bytes_read):
    with pytest.raises(LabsupportError, match="cpu, apple or gpu"):
        decode_range(tier, bytes_read=bytes_read)


@pytest.mark.parametrize("bad", [0, -3, float("nan"), float("inf"), True, "7"])
def test_a_number_that_no_ratio_can_be_made_of_is_refused(bad):
    with pytest.raises(PredictionError, match="above 0"):
        predict("size", "?", unit="MB", guess=bad)
    with pytest.raises(PredictionError, match="above 0"):
        score("size", bad, unit="MB")


def test_a_guess_in_another_unit_is_not_compared():
    predict("size", "?", unit="MB", guess=5)
    with pytest.raises(PredictionError, match="predicted in MB and measured in GiB"):
        score("size", 5, unit="GiB")


def test_the_button_locks_what_was_typed_and_then_goes_dead():
    field, button, status = field_button_status(predict("size", "?", unit="MB"))
    assert "No prediction yet" in status.value
    field.value = "1,250"
    button.click()
    assert locked("size").value == 1250
    assert "Locked: 1,250 MB" in status.value
    assert field.disabled
    assert button.disabled


def test_the_button_explains_a_guess_that_is_no_number():
    field, button, status = field_button_status(predict("size", "?", unit="MB"))
    field.value = "a lot"
    button.click()
    assert "&#x27;a lot&#x27; is not a number" in status.value
    assert locked("size") is None


def test_a_returning_reader_finds_the_guess_locked():
    predict("size", "?", unit="MB", guess=5)
    field, button, status = field_button_status(predict("size", "?", unit="MB"))
    assert (field.value, field.disabled, button.disabled) == ("5", True, True)
    assert "Locked: 5 MB" in status.value


def test_the_saved_page_is_the_same_for_every_reader():
    before = predict("size", "How many MB?", unit="MB")._repr_mimebundle_()
    after = predict("size", "How many MB?", unit="MB", guess=4)._repr_mimebundle_()
    assert before["text/plain"] == after["text/plain"] == "Predict, in MB: How many MB?"
    assert "application/vnd.jupyter.widget-view+json" in before


def test_a_half_written_line_costs_only_itself():
    predict("first", "?", unit="MB", guess=1)
    with log_path().open("a") as file:
        file.write('{"event": "predicted", "na')
    predict("second", "?", unit="MB", guess=2)
    assert [name for name, (guess, _) in history().items() if guess] == ["first", "second"]


def test_a_data_directory_that_cannot_be_written_is_named_with_a_remedy(tmp_path: Path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("LABSUPPORT_DATA", str(blocked / "data"))
    with pytest.raises(LogUnwritableError, match="LABSUPPORT_DATA") as caught:
        predict("size", "?", unit="MB", guess=5)
    assert str(blocked) in caught.value.problem
    assert score("size", 5, unit="MB").measured == 5  # the lesson itself goes on


def test_the_data_directory_follows_the_desktop_convention(monkeypatch, tmp_path):
    monkeypatch.delenv("LABSUPPORT_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert log_path() == tmp_path / "labsupport" / "predictions.jsonl"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert str(log_path()).startswith(os.path.expanduser("~"))  # noqa: PTH111
