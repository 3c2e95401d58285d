"""A converted checkpoint is the same model: llama.cpp's tokens, logits and text are those of transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import labsupport.models
from labsupport.anatomy import gguf_header, parameters, shape_of
from labsupport.anatomy.model_file_error import ModelFileError
from labsupport.errors import LabsupportError
from labsupport.models.convert import convert
from labsupport.models.gguf_tokenizer import _WORDS
from tests.models.llama import in_f32, logits, opened

TEXTS = (
    "The database on node 17 failed at 03:45; 1234567 requests were lost.",
    "Über naïve Straße 😀 日本語 — it's they'll WE'VE",
    "  two  spaces\tand tabs\n\n\nlines \r\n end  ",
    "def f(x):\n    return x**2  # 3.14",
    "<|im_start|>user\nhello<|im_end|>\n",
    " ",
    "a",
)


@pytest.fixture(scope="module")
def pocket() -> tuple[Any, Any]:
    folder = labsupport.models.checkpoint("pocket")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return AutoTokenizer.from_pretrained(folder), model


def reference_logits(model: Any, tokens: list[int]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return np.asarray(model(torch.tensor([tokens])).logits[0].float())


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_of_the_pocket_model_are_those_of_its_tokenizer(
    text: str, pocket: tuple[Any, Any], in_shared_cache: Path
) -> None:
    tokenizer, _ = pocket
    with opened(labsupport.models.path("pocket", "bf16"), vocabulary_only=True) as gguf:
        tokens = gguf.tokenize(text.encode(), add_bos=False, special=True)
        assert tokens == tokenizer(text)["input_ids"]
        assert gguf.detokenize(tokens, special=True).decode() == text


def test_logits_of_the_pocket_model_are_those_of_transformers(
    pocket: tuple[Any, Any], in_shared_cache: Path, tmp_path: Path
) -> None:
    tokenizer, model = pocket
    tokens = tokenizer(TEXTS[0] + TEXTS[1] + TEXTS[3])["input_ids"]
    expected = reference_logits(model, tokens)
    with opened(in_f32(labsupport.models.path("pocket", "bf16"), tmp_path / "f32.gguf")) as gguf:
        found = logits(gguf, tokens)
    # In float32 only the order of sums differs. Of 16-bit weights llama.cpp makes 16-bit products as well.
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_greedy_text_of_the_pocket_model_is_that_of_transformers(
    pocket: tuple[Any, Any], in_shared_cache: Path
) -> None:
    tokenizer, model = pocket
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is a KV cache?"}], add_generation_prompt=True, return_dict=False
    )
    tokens, written = list(prompt), []
    with opened(labsupport.models.path("pocket", "bf16")) as gguf:
        for _ in range(24):
            row = logits(gguf, tokens)[-1]
            expected = reference_logits(model, tokens)[-1]
            second, best = np.sort(expected)[-2:]
            if best - second > 0.1:  # closer than that, rounding may choose either
                assert row.argmax() == expected.argmax()
            token = int(expected.argmax())
            tokens.append(token)
            written.append(token)
            if token == tokenizer.eos_token_id:
                break
        assert gguf.detokenize(written).decode(errors="replace") == tokenizer.decode(
            written, skip_special_tokens=True
        )


def test_metadata_carry_special_tokens_and_chat_template(in_shared_cache: Path) -> None:
    header = gguf_header.read(labsupport.models.path("pocket", "bf16"))
    folder = labsupport.models.checkpoint("pocket")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    words = header.metadata["tokenizer.ggml.tokens"]

    assert header.metadata["tokenizer.chat_template"] == (folder / "chat_template.jinja").read_text()
    assert words[header.metadata["tokenizer.ggml.eos_token_id"]] == settings["eos_token"]
    assert words[header.metadata["tokenizer.ggml.bos_token_id"]] == settings["bos_token"]
    assert header.metadata["tokenizer.ggml.add_bos_token"] is False
    assert header.metadata["tokenizer.ggml.pre"] == "smollm"
    assert parameters(shape_of(header.path)) == parameters(shape_of(folder))


SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def trained_tokenizer(pattern: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(pattern), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|begin|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, "123 1234 12345 return returns requests"] * 4, trainer)
    return tokenizer


def checkpoint_of(folder: Path, kind: str, pattern: str, **options: Any) -> tuple[Tokenizer, Any]:
    """A tiny random checkpoint of an architecture, saved in Hugging Face's layout."""
    folder.mkdir()
    tokenizer = trained_tokenizer(pattern)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<|begin|>", "eos_token": "<|im_end|>"})
    )
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, "vocab_size": 410, **options})
    model = AutoModelForCausalLM.from_config(config).eval()
    for tensor in model.parameters():  # norms of one and biases of zero would hide a forgotten tensor
        torch.nn.init.normal_(tensor, mean=1.0 if tensor.ndim == 1 else 0.0, std=0.1)
    model.save_pretrained(folder)
    return tokenizer, model


@pytest.mark.parametrize(
    ("kind", "digits", "options"),
    [
        ("llama", "{1,3}", {"tie_word_embeddings": False, "rope_parameters": LLAMA3_ROPE}),
        ("llama", "{1,3}", {"tie_word_embeddings": True, "head_dim": 32, "attention_bias": True}),
        ("qwen2", "", {"tie_word_embeddings": True}),
        ("qwen3", "", {"tie_word_embeddings": True, "head_dim": 32}),
        ("mistral", "{1,3}", {"tie_word_embeddings": False, "sliding_window": None}),
    ],
)
def test_each_architecture_computes_what_transformers_computes(
    tmp_path: Path, kind: str, digits: str, options: dict[str, Any]
) -> None:
    tokenizer, model = checkpoint_of(tmp_path / "hf", kind, _WORDS.replace("DIGITS", digits), **options)
    convert(tmp_path / "hf", tmp_path / "x.gguf", form="f16")

    tokens = tokenizer.encode(
        TEXTS[0] + TEXTS[1] + "x" * 100
    ).ids  # past the 64 positions of the stretched RoPE
    expected = reference_logits(model, tokens)
    with opened(tmp_path / "x.gguf") as gguf:
        found = logits(gguf, tokens)
        for text in TEXTS[:4]:
            assert gguf.tokenize(text.encode(), add_bos=False, special=True) == tokenizer.encode(text).ids
    spread = expected.std()
    assert np.abs(found - expected).max() < 0.05 * spread


def edited(folder: Path, file: str, **changes: Any) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **changes}))


def test_what_cannot_be_converted_is_named(own_pocket: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    edited(own_pocket, "config.json", model_type="gemma2")
    with pytest.raises(LabsupportError, match="'gemma2' cannot be converted"):
        convert(own_pocket, target)
    edited(
        own_pocket, "config.json", model_type="llama", rope_parameters={"rope_type": "yarn", "factor": 2.0}
    )
    with pytest.raises(LabsupportError, match="'yarn' cannot be converted"):
        convert(own_pocket, target)
    edited(own_pocket, "config.json", rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    edited(own_pocket, "tokenizer.json", pre_tokenizer={"type": "Whitespace"})
    with pytest.raises(LabsupportError, match="no known name in llama"):
        convert(own_pocket, target)
    (own_pocket / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match="holds no BPE tokenizer"):
        convert(own_pocket, target)


def test_broken_weights_are_named(own_pocket: Path, tmp_path: Path) -> None:
    weights, target = own_pocket / "model.safetensors", tmp_path / "x.gguf"
    tensors = load_file(weights)
    spoiled = {name: tensor.clone() for name, tensor in tensors.items()}
    spoiled["model.layers.2.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(spoiled, weights)
    with pytest.raises(
        ModelFileError, match=r"layers\.2\.mlp\.up_proj\.weight' holds a weight that is not finite"
    ):
        convert(own_pocket, target)

    del spoiled["model.layers.2.mlp.up_proj.weight"]
    save_file(spoiled, weights)
    with pytest.raises(ModelFileError, match=r"1 tensors are missing, blk\.2\.ffn_up"):
        convert(own_pocket, target)

    save_file(tensors, weights)
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFileError, match="truncated"):
        convert(own_pocket, target)

    weights.unlink()
    with pytest.raises(ModelFileError, match=r"holds no \.safetensors file"):
        convert(own_pocket, target)


def test_weights_in_several_files_are_one_model(own_pocket: Path, tmp_path: Path) -> None:
    convert(own_pocket, tmp_path / "one.gguf")
    tensors = load_file(own_pocket / "model.safetensors")
    (own_pocket / "model.safetensors").unlink()
    names = sorted(tensors)
    for part, chosen in enumerate((names[::2], names[1::2]), start=1):
        save_file(
            {name: tensors[name] for name in chosen}, own_pocket / f"model-0000{part}-of-00002.safetensors"
        )
    convert(own_pocket, tmp_path / "two.gguf")

    def content(path: Path) -> dict[str, bytes]:
        raw = path.read_bytes()
        return {t.name: raw[t.offset : t.offset + t.nbytes] for t in gguf_header.read(path).tensors}

    assert content(tmp_path / "one.gguf") == content(tmp_path / "two.gguf")
    shutil.rmtree(own_pocket)
