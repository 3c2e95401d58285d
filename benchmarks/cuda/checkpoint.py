"""A Hugging Face checkpoint of random weights at any shape, made on the GPU where there is one.

No download, and the same way in as a real model: a safetensors file that transformers reads. Weights are
normal with deviation 0.02, norms are 1. The file is written tensor by tensor, so host memory stays small.
Right means: exactly the tensors that transformers' own model of that config has.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from labsupport.errors import LabsupportError

_DEVIATION = 0.02
_SHARED_MEMORY = Path("/dev/shm")
_ROOM = 1.05


def write_checkpoint(config: dict[str, Any], folder: Path, *, device: str = "cpu", seed: int = 0) -> None:
    """Write config, tokenizer and bf16 weights, if they are not there; `config` is as in a `config.json`."""
    import tokenizers
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if is_complete(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"bos_token_id": None, "eos_token_id": None, "dtype": "bfloat16"} | config
    model_config = AutoConfig.for_model(**settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}  # tied ones once
    generator = torch.Generator(device).manual_seed(seed)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(_header(shapes))
        for shape in shapes.values():
            tensor = torch.ones(shape, dtype=torch.bfloat16, device=device)
            if len(shape) > 1:
                tensor.normal_(0, _DEVIATION, generator=generator)
            tensor.view(torch.int16).cpu().numpy().tofile(file)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    bytes_alone = tokenizers.models.BPE(vocab={text: place for place, text in enumerate(alphabet)}, merges=[])
    tokenizers.Tokenizer(bytes_alone).save(str(folder / "tokenizer.json"))
    model_config.save_pretrained(folder)  # last: it says that the rest is there


def _header(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """The head of a safetensors file: its length in 8 bytes, then JSON (https://github.com/huggingface/safetensors)."""
    entries, offset = {}, 0
    for name, shape in shapes.items():
        size = 2
        for length in shape:
            size *= length
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps({"__metadata__": {"format": "pt"}} | entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint was written there to its end."""
    return (folder / "config.json").is_file()


def candidates(scratch: Path | None = None) -> list[Path]:
    """Where models may be made: memory first, then the disk; or only where one was told to."""
    places = [scratch] if scratch else [_SHARED_MEMORY, Path(tempfile.gettempdir())]
    return [place for place in places if place.is_dir()]


def roomy_folder(needed_bytes: int, scratch: Path | None = None) -> Path:
    """Where a file of that size goes: memory if it has room, else the disk. Raises LabsupportError if none.

    A file in memory is written and read several times faster, and is gone with the machine.
    """
    there = candidates(scratch)
    for folder in there:
        if shutil.disk_usage(folder).free > _ROOM * needed_bytes:
            return folder
    free = ", ".join(f"{folder} has {shutil.disk_usage(folder).free / 1e9:.1f} GB" for folder in there)
    raise LabsupportError(
        f"no folder has room for the model's {needed_bytes / 1e9:.1f} GB: {free or 'none is there'}",
        remedy="Name one with --scratch.",
    )
