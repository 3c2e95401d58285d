"""Training lowers the loss, can be stopped anywhere, and goes on as if it had never been stopped."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from labsupport.pocket import tokenizer as pocket_tokenizer
from labsupport.pocket import train
from labsupport.pocket.curriculum import Curriculum, induction_row, lookup_row
from labsupport.pocket.model_config import llama_config
from labsupport.pocket.muon import Muon
from labsupport.pocket.report import WEIGHTS
from labsupport.pocket.schedule import (
    AVERAGED,
    CYCLES,
    EMBEDDING_RATE,
    HELD_STEPS,
    RISE_STEPS,
    optimizers,
    set_rates,
    share_of_rate,
)
from labsupport.pocket.skills import samples
from labsupport.pocket.team import Team
from labsupport.pocket.train import CHECKPOINT, Training, loss_sum, micro_batches
from labsupport.pocket.wiring import wire

SMALL = Curriculum(tokens_per_step=768)
SKILLS_AT_ONCE = replace(SMALL, stages=(replace(SMALL.stages[2], start=0),))


def _training(
    folder: Path,
    *,
    seed: int = 5,
    steps: int = 400,
    curriculum: Curriculum = SMALL,
    dtype: torch.dtype | None = None,
) -> Training:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(pocket_tokenizer.__file__).with_name("weights") / "tokenizer.json", folder)
    return Training(folder, seed=seed, steps=steps, curriculum=curriculum, learning_rate=0.006, dtype=dtype)


@pytest.mark.slow
def test_one_minute_of_training_lowers_the_loss(tmp_path: Path) -> None:
    training = _training(tmp_path, curriculum=SKILLS_AT_ONCE)
    rows = [
        row
        for seed in range(1000, 1010)  # none that it trains on; and the same before and after
        for row in SKILLS_AT_ONCE.rows(0, seed=seed, tokenizer=training.tokenizer)
    ]

    def loss() -> float:
        with torch.no_grad():
            losses = sum(loss_sum(training.model, batch).item() for batch in micro_batches(rows))
        return losses / sum(sum(row.weights) for row in rows)

    before = loss()
    training.run(seconds=60)
    assert training.step >= 15, f"{training.step} steps in a minute"
    after = loss()
    assert after < 0.75 * before, f"{before} before, {after} after {training.step} steps"


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


def test_what_is_exported_is_the_mean_of_the_steps_that_are_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "AVERAGED", {1: 0.25, 3: 0.75})
    weights = []
    for step in (1, 2, 3):  # stopped and gone on with in between
        training = _training(tmp_path)
        training.run(until=step)
        weights.append({name: tensor.clone() for name, tensor in training.model.state_dict().items()})
        training.export(tmp_path / f"export{step}")

    def exported(step: int) -> dict[str, torch.Tensor]:
        return LlamaForCausalLM.from_pretrained(tmp_path / f"export{step}").state_dict()

    for name, tensor in exported(3).items():
        mean = 0.25 * weights[0][name] + 0.75 * weights[2][name]
        torch.testing.assert_close(tensor.float(), mean.bfloat16().float())
    for name, tensor in exported(2).items():  # not yet there: the last step's own
        torch.testing.assert_close(tensor.float(), weights[1][name].bfloat16().float())


def test_ends_of_cycles_are_averaged_and_with_shares_of_one() -> None:
    assert set(AVERAGED) <= {end for end, _ in CYCLES}
    assert max(AVERAGED) == CYCLES[-1][0]
    assert sum(AVERAGED.values()) == pytest.approx(1)


def test_products_in_bf16_hardly_change_a_step_and_leave_what_is_kept_in_fp32(tmp_path: Path) -> None:
    def after_a_step(dtype: torch.dtype) -> Training:
        folder = tmp_path / str(dtype)
        training = _training(folder, curriculum=SKILLS_AT_ONCE, dtype=dtype)
        trained = LlamaForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)
        training.model.load_state_dict(trained.state_dict())
        training.run(until=1)
        return training

    exact, rounded = after_a_step(torch.float32), after_a_step(torch.bfloat16)
    kept = [*rounded.model.parameters(), *(t for o in rounded.optimizers for t in _tensors(o.state_dict()))]
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    loss, rounded_loss = exact.curve[0]["loss"], rounded.curve[0]["loss"]
    assert loss != rounded_loss
    assert rounded_loss == pytest.approx(loss, rel=0.02)


def _tensors(state: object) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    inside = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return [tensor for each in inside for tensor in _tensors(each)]


def test_muon_in_bf16_moves_nearly_as_in_fp32() -> None:
    moved = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(3)
        matrices = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((256, 768), (768, 256), (128, 256))]
        for matrix in matrices:
            matrix.grad = torch.randn_like(matrix)
        Muon(matrices, lr=0.1, dtype=dtype).step()
        moved.append(torch.cat([matrix.detach().flatten() for matrix in matrices]))
    assert moved[0].dtype == moved[1].dtype == torch.float32
    assert not torch.equal(moved[0], moved[1])
    assert torch.cosine_similarity(moved[0], moved[1], dim=0) > 0.998


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
    tokenizer = _tokenizer()
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


def _tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(Path(pocket_tokenizer.__file__).with_name("weights") / "tokenizer.json"))


def _start(tokenizer: Tokenizer, *, is_wired: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(llama_config(tokenizer.get_vocab_size())).float()
    if is_wired:
        starts = pocket_tokenizer.word_starts(tokenizer)
        wire(model, word_starts=starts, generator=torch.Generator().manual_seed(0))
    return model


def test_a_wired_start_copies_and_an_unwired_one_does_not() -> None:
    tokenizer, rng = _tokenizer(), random.Random(0)
    rows = [induction_row(rng, copied=24, vocabulary_size=tokenizer.get_vocab_size()) for _ in range(16)]
    weights = sum(sum(row.weights) for row in rows)
    with torch.no_grad():
        unwired, wired = (
            loss_sum(_start(tokenizer, is_wired=is_wired), rows).item() / weights
            for is_wired in (False, True)
        )
    assert unwired > 6.5  # chance is the logarithm of 2,048: 7.6
    assert wired < 2.0


def test_behind_a_word_a_wired_start_notes_the_token_that_it_began_with() -> None:
    tokenizer = _tokenizer()
    starts = pocket_tokenizer.word_starts(tokenizer).tolist()

    def found(*, is_wired: bool) -> float:
        model = _start(tokenizer, is_wired=is_wired)
        notes = slice(256 - 28 - 2 * (14 + 8 + 8 + 18), 256)  # whatever of the stream is not the token's own
        right, asked = 0, 0
        known: list[tuple[torch.Tensor, int]] = []
        for sample in samples("summarize", split="train", seed=3, count=12):
            tokens = tokenizer.encode(sample.prompt).ids
            with torch.no_grad():
                hidden = model.model(torch.tensor([tokens]), output_hidden_states=True).hidden_states[3][0]
            began = None
            for place, token in enumerate(tokens):
                if began is not None:
                    known.append((hidden[place, notes], tokens[began]))
                began = place if starts[token] else began
        # The note of one occurrence is compared with those of all others: the nearest is of the same word.
        stack = torch.stack([note for note, _ in known])
        stack = stack / stack.norm(dim=1, keepdim=True)
        near = stack @ stack.T - 2 * torch.eye(len(stack))
        for i, (_, token) in enumerate(known):
            if sum(other == token for _, other in known) > 1:
                asked += 1
                right += known[int(near[i].argmax())][1] == token
        return right / asked

    assert found(is_wired=True) > found(is_wired=False) + 0.2


def test_the_rate_comes_down_to_zero_at_the_end_of_each_cycle_and_rises_less_high() -> None:
    steps = CYCLES[-1][0]
    shares = [share_of_rate(step, steps=steps, decay_share=0.3) for step in range(steps)]
    assert shares[RISE_STEPS] == shares[3000] == 1.0
    for (end, _), (next_end, share) in pairwise(CYCLES):
        assert 0 < shares[end - 1] < 0.01
        assert max(shares[end:next_end]) == share < 1
    assert 0 < shares[-1] < 0.01
    short = [share_of_rate(step, steps=400, decay_share=0.3) for step in range(400)]
    assert max(short) == 1.0
    assert 0 < short[-1] < 0.01


def test_what_is_wired_waits_and_then_learns_slowly() -> None:
    model = _start(_tokenizer(), is_wired=False)
    both = optimizers(model, Team())

    def rates(step: int) -> dict[str, float]:
        set_rates(both, learning_rate=1.0, step=step)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        return {
            names[id(parameter)]: group["lr"]
            for optimizer in both
            for group in optimizer.param_groups
            for parameter in group["params"]
        }

    early, late = rates(HELD_STEPS - 1), rates(2000)
    assert len(early) == len(list(model.named_parameters()))
    held = {name for name, rate in early.items() if rate == 0}
    assert {name for name in early if "embed" in name or ".layers.0." in name or ".layers.2." in name} <= held
    assert not any(".layers.3." in name or ".layers.5." in name for name in held)
    assert all(0 < late[name] < (EMBEDDING_RATE if "embed" in name else 0.5) for name in held)
    assert all(late[name] in (1.0, EMBEDDING_RATE) for name in set(late) - held)


def test_a_row_of_the_look_back_asks_for_each_word_once_behind_its_mark() -> None:
    tokenizer = _tokenizer()
    row = lookup_row(random.Random(1), tokenizer)
    first = row.weights.index(1.0) - 1
    text = row.tokens[:first]
    asked = [i for i in range(first, len(row.tokens)) if not row.weights[i]]
    assert len(asked) >= 4
    for mark, after in zip(asked, [*asked[1:], len(row.tokens)], strict=True):
        word, length = row.tokens[mark + 1 : after], after - mark - 1
        place = [i for i in range(len(text)) if text[i] == row.tokens[mark] and text[i - length : i] == word]
        assert place, (word, row.tokens[mark])
