"""What transformers does by itself with the same model, prompts and numbers of tokens.

`generate` runs a batch that starts and ends together. Continuous batching (`ContinuousBatchingManager`) is
the engine of its own server, with a paged cache; its sizes are given, because finding them takes it long.
Written for transformers 5.17 and 5.23, which call the length of a page differently.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
from transformers.generation.streamers import BaseStreamer

from labsupport.engine.runners.bnb.loading import compute_dtype, quantization_config
from labsupport.errors import LabsupportError

PAGE_TOKENS = 256
STEP_TOKENS = 2048

Times = tuple[float, list[list[float]]]
"""When a run began, and for each sequence when each of its tokens was there."""


def load(checkpoint: str, quantization: str, device: torch.device, *, attention: str = "sdpa") -> Any:
    """The model as our runner loads it, with one of transformers' own ways of attention."""
    return AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=compute_dtype(quantization, device),
        device_map={"": str(device)},
        attn_implementation=attention,
        quantization_config=quantization_config(quantization, device),
        local_files_only=True,
    ).eval()


class _Clock(BaseStreamer):
    """Notes when `generate` hands over each step's tokens; what it hands over first is the prompts."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def generate(model: Any, prompts: list[list[int]], new_tokens: int) -> Times:
    """One call of `generate`, greedy, to the full number of tokens."""
    ids = torch.tensor(prompts, device=model.device)
    clock, began = _Clock(), time.perf_counter()
    with torch.inference_mode():
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=GenerationConfig(max_new_tokens=new_tokens, do_sample=False, pad_token_id=0),
            streamer=clock,
        )
    return began, [clock.times[1:]] * len(prompts)


@contextmanager
def continuous_batching(model: Any, *, sequences: int, tokens_each: int, new_tokens: int) -> Iterator[Any]:
    """A manager for at most so many sequences of so many tokens. `run_continuous` uses it."""
    names = {field.name for field in dataclasses.fields(ContinuousBatchingConfig)}
    page = "page_size" if "page_size" in names else "block_size"
    config = ContinuousBatchingConfig(
        **{page: PAGE_TOKENS},
        num_blocks=sequences * (1 + -(-tokens_each // PAGE_TOKENS)),
        max_batch_tokens=max(STEP_TOKENS, sequences),
        max_requests_per_batch=sequences,
        allow_block_sharing=False,
    )
    with model.continuous_batching_context_manager(
        generation_config=GenerationConfig(max_new_tokens=new_tokens, do_sample=False, eos_token_id=-1),
        continuous_batching_config=config,
        timeout=30,
    ) as manager:
        yield manager


def run_continuous(manager: Any, prompts: list[list[int]], new_tokens: int) -> Times:
    """Hand all prompts over at once and wait for the answers."""
    began = time.perf_counter()
    waiting = set(manager.add_requests(inputs=prompts, max_new_tokens=new_tokens, record_timestamps=True))
    times = []
    while waiting:
        answer = manager.get_result(timeout=1)
        if answer is None:
            if not manager.is_running():
                raise LabsupportError("continuous batching has stopped by itself")
        elif answer.is_finished():
            if answer.error:
                raise LabsupportError(f"continuous batching refused a request: {answer.error}")
            waiting.discard(answer.request_id)
            times.append(list(answer.timestamps))
    return began, times
