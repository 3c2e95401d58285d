"""Greedy answers of a model: a checkpoint through transformers, a GGUF file through our engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labsupport.evaluation.exact_match import Answerer

MAX_ANSWER_TOKENS = 96
_BATCH_TOKENS = 16_384


def checkpoint_answerer(folder: Path, *, threads: int = 2) -> Answerer:
    """The weights as they are stored (bf16), with arithmetic in float32: what the file can do at its best."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(prompts: Sequence[str]) -> list[str]:
        ids = [chat_tokens(tokenizer, prompt) for prompt in prompts]
        answers = [""] * len(ids)
        for batch in _batches(ids):
            inputs = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt")
            with torch.inference_mode():
                output = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_ANSWER_TOKENS)
            for i, row in zip(batch, output[:, inputs["input_ids"].shape[1] :], strict=True):
                answers[i] = tokenizer.decode(row, skip_special_tokens=True)
        return answers

    return answer


def gguf_answerer(model_path: Path, tokenizer_folder: Path, *, threads: int = 2) -> Answerer:
    """A GGUF file through the course's own scheduler and llama.cpp, in this process."""
    from transformers import AutoTokenizer

    from labsupport.engine import offline
    from labsupport.engine.messages import SamplingParams

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    greedy = SamplingParams(max_tokens=MAX_ANSWER_TOKENS, temperature=0.0)

    def answer(prompts: Sequence[str]) -> list[str]:
        ids = [chat_tokens(tokenizer, prompt) for prompt in prompts]
        longest = max(map(len, ids)) + MAX_ANSWER_TOKENS
        # All sequences share one range of cells, and attention scans it: few long sequences at a time.
        slots = max(1, min(16, 4096 // longest))
        completions = offline.generate(
            model_path,
            ids,
            greedy,
            context_tokens=longest,
            slots=slots,
            kv_cells=slots * longest,
            prefix_slots=0,
            threads=threads,
        )
        return [tokenizer.decode(completion.tokens, skip_special_tokens=True) for completion in completions]

    return answer


def chat_tokens(tokenizer: Any, prompt: str) -> list[int]:
    """A user's message as the model's chat template writes it, up to where the answer begins."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokens


def _batches(ids: list[list[int]]) -> list[list[int]]:
    """Indices of prompts of like length, at most `_BATCH_TOKENS` a batch with the padding."""
    batches: list[list[int]] = []
    for i in sorted(range(len(ids)), key=lambda i: -len(ids[i])):
        if not batches or len(ids[batches[-1][0]]) * (len(batches[-1]) + 1) > _BATCH_TOKENS:
            batches.append([])
        batches[-1].append(i)
    return batches
