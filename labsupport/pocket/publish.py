"""From new weights to what the repository says about them: checksums, evaluation record, loss curve, card."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from labsupport.pocket.card import write_card
from labsupport.pocket.curriculum import Curriculum
from labsupport.pocket.memory_check import NEIGHBOURS, memory_check
from labsupport.pocket.report import QUANTS, evaluate

RECORD = "evaluation.json"
CURVE = "loss_curve.json"
CHECKSUMS = "checksums.txt"


def publish(
    folder: Path,
    curve: list[dict[str, float]],
    *,
    training_seed: int,
    seed: int,
    samples: int,
    remark: str = "",
) -> None:
    """Measure the weights in `folder`, and write beside them everything that is said about them.

    `remark` is what a reader of the card should know about this training.
    """
    from tokenizers import Tokenizer

    sums = write_checksums(folder)
    found = {}
    for quant in QUANTS:
        found[quant] = evaluate(quant, seed=seed, samples=samples, folder=folder)["exact_match"]
        shares = {name: figures["share"] for name, figures in found[quant].items()}
        print(quant, shares, file=sys.stderr, flush=True)
    memory = memory_check(
        Curriculum(),
        steps=len(curve),
        training_seed=training_seed,
        tokenizer=Tokenizer.from_file(str(folder / "tokenizer.json")),
        seed=seed,
        samples=samples,
    )
    record: dict[str, Any] = {
        "weights_sha256": sums["model.safetensors"],
        "parameters": count_parameters(folder),
        "seed": seed,
        "samples": samples,
        "exact_match": found,
        "memory": {"neighbours": NEIGHBOURS, "exercises": memory},
        "training_seed": training_seed,
        "remark": remark,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (folder / CURVE).write_text(json.dumps(curve) + "\n", encoding="utf-8")
    write_card(folder, record, curve)


def replace_folder(new: Path, old: Path) -> None:
    """Put a copy of `new` where `old` is. Until the last moment `old` stays as it is."""
    beside, aside = old.with_name(f"{old.name}.new"), old.with_name(f"{old.name}.old")
    for rest in (beside, aside):
        shutil.rmtree(rest, ignore_errors=True)
    shutil.copytree(new, beside)
    old.rename(aside)
    beside.rename(old)
    shutil.rmtree(aside)


def write_checksums(folder: Path) -> dict[str, str]:
    """`checksums.txt` as sha256sum prints it, for every file that a program loads."""
    loaded = (f for f in folder.iterdir() if f.suffix in (".json", ".jinja", ".safetensors"))
    files = sorted(file for file in loaded if file.name not in (RECORD, CURVE))
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    lines = (f"{digest}  {name}\n" for name, digest in sums.items())
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
    return sums


def count_parameters(folder: Path) -> int:
    """Numbers in the safetensors file; tied weights are stored, and counted, once."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="np") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    total = 0
    for shape in shapes:
        count = 1
        for length in shape:
            count *= length
        total += count
    return total
