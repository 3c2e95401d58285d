"""The tokenizer: byte-level BPE (byte-pair encoding) with single digits, and the chat format.

Right means: any text comes back as it was, a number is one token per digit, and llama.cpp's pre-tokenizer
"smollm" cuts text in the same places.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

VOCABULARY_SIZE = 2048
END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train(texts: Iterable[str]) -> Any:
    """A `tokenizers.Tokenizer` of `VOCABULARY_SIZE` tokens; the same texts give the same tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(tokenizer: Any, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja as transformers reads them."""
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)


def user_turn(content: str, *, system: str = "") -> str:
    """The text before an answer, as the chat template writes it."""
    head = f"{TURN_START}system\n{system}{TURN_END}\n" if system else ""
    return f"{head}{TURN_START}user\n{content}{TURN_END}\n{TURN_START}assistant\n"


def word_starts(tokenizer: Any) -> Any:
    """For each token, whether it begins with a space: a tensor of booleans, [vocabulary]."""
    import torch

    size = tokenizer.get_vocab_size()
    return torch.tensor([tokenizer.id_to_token(i).startswith("Ġ") for i in range(size)])
