"""Training lowers the loss, can be stopped anywhere, and goes on as if it had never been stopped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from labsupport.pocket import tokenizer as pocket_tokenizer
from labsupport.pocket.curriculum import Curriculum, induction_row
from labsupport.pocket.model_config import llama_config
from labsupport.pocket.train import CHECKPOINT, Training, loss_sum, micro_batches
from labsupport.pocket.wiring import wire_induction

SMALL = Curriculum(tokens_per_step=768)


def _training(folder: Path, *, seed: int = 5, steps: int = 400) -> Training:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(pocket_tokenizer.__file__).with_name("weights") / "tokenizer.json", folder)
    rate = 0.002  # the run's 0.006 for 5,120 tokens a step, scaled with the square root of the tokens here
    return Training(folder, seed=seed, steps=steps, curriculum=SMALL, learning_rate=rate)


@pytest.mark.slow
def test_one_minute_of_training_lowers_the_loss(tmp_path: Path) -> None:
    training = _training(tmp_path)
    training.run(seconds=60)
    losses = [point["loss"] for point in training.curve]
    tail = losses[-5:]
    assert len(losses) >= 15, f"{len(losses)} steps in a minute"
    assert sum(tail) / len(tail) < 0.75 * losses[0], losses


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path: Path) -> None:
    unbroken = _training(tmp_path / "unbroken")
    unbroken.run(until=4)

    _training(tmp_path / "broken").run(until=2)
    resumed = _training(tmp_path / "broken")
    assert resumed.step == 2
    resumed.run(until=4)

    assert [point["loss"] for point in resumed.curve] == [point["loss"] for point in unbroken.curve]
    for (name, theirs), ours in zip(
        unbroken.model.state_dict().items(), resumed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(theirs, ours), name


def test_an_interrupted_save_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = _training(tmp_path)
    training.run(until=1)
    before = (tmp_path / CHECKPOINT).read_bytes()

    def full_disk(_: object, file: Path) -> None:
        Path(file).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        training.save_checkpoint()
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_batches_hang_on_seed_and_step_alone() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(
        str(Path(pocket_tokenizer.__file__).with_name("weights") / "tokenizer.json")
    )
    curriculum = Curriculum()
    rows = curriculum.rows(400, seed=1, tokenizer=tokenizer)
    assert curriculum.rows(400, seed=1, tokenizer=tokenizer) == rows
    assert curriculum.rows(401, seed=1, tokenizer=tokenizer) != rows
    assert curriculum.rows(400, seed=2, tokenizer=tokenizer) != rows
    assert sorted(map(id, (row for batch in micro_batches(rows) for row in batch))) == sorted(map(id, rows))
    assert (
        max(
            len(row.tokens)
            for step in range(600, 620)
            for row in curriculum.rows(step, seed=1, tokenizer=tokenizer)
        )
        > 1000
    )


def test_a_wired_start_copies_and_an_unwired_one_does_not() -> None:
    import random

    from transformers import LlamaForCausalLM

    rng = random.Random(0)
    rows = [induction_row(rng, copied=24, vocabulary_size=1536) for _ in range(16)]
    torch.manual_seed(0)
    model = LlamaForCausalLM(llama_config(1536)).float()
    weights = sum(sum(row.weights) for row in rows)
    with torch.no_grad():
        unwired = loss_sum(model, rows).item() / weights
        wire_induction(model, generator=torch.Generator().manual_seed(0))
        wired = loss_sum(model, rows).item() / weights
    assert unwired > 6.5  # chance is ln 1536 = 7.3
    assert wired < 2.0
