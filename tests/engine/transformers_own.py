"""What transformers itself says of a checkpoint: the reference for the bnb runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM


def reference(checkpoint: Path, **how: Any) -> Any:
    """The model as transformers loads it by itself, in fp32 unless `how` says otherwise."""
    return AutoModelForCausalLM.from_pretrained(checkpoint, **({"dtype": torch.float32} | how)).eval()


def generated(model: Any, prompt: list[int], max_tokens: int) -> tuple[int, ...]:
    """The tokens of transformers' own `generate` for one prompt, greedy, an end token included."""
    ids = torch.tensor([prompt], device=model.device)
    with torch.no_grad():
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_tokens
        )
    return tuple(whole[0, len(prompt) :].tolist())
