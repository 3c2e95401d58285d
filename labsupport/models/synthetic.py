"""A model of random numbers at a published shape: for timing at realistic sizes, with no download.

How long a step takes hardly depends on the weights' values, so random ones time as real ones do; what the
model says is noise. Weights are normal with mean 0 and standard deviation 0.02, norms are 1, all finite.
They are written straight to the file in blocks, so memory stays small whatever the size. In Q4_K_M the
blocks themselves are random (`synthetic_blocks`), so that no larger file has to be made and quantized first.

The vocabulary is byte-level: the 256 bytes, three special tokens (`<|endoftext|>`, `<|im_start|>`,
`<|im_end|>`), one pair of spaces (llama.cpp wants at least one merge), then fillers up to the size asked,
whose text is a space and their number. A prompt costs one token per byte; generated text reads as numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from labsupport.anatomy import ModelShape
from labsupport.anatomy.formats import format_named
from labsupport.anatomy.gguf_recipes import tensor_format
from labsupport.errors import LabsupportError
from labsupport.models.convert import to_bf16
from labsupport.models.gguf_layout import write_shape
from labsupport.models.synthetic_blocks import random_blocks

SEED = 0
_DEVIATION = 0.02
_BLOCK_WEIGHTS = 1 << 23
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_SMALLEST_VOCABULARY = 256 + len(_SPECIAL) + 1


def write_synthetic(
    shape: ModelShape, target: Path, *, form: str = "bf16", name: str = "synthetic", seed: int = SEED
) -> None:
    """Write a GGUF file of random weights, in `form` (`bf16`, `f16` or `q4_k_m`). Same seed, same file.

    Raises `LabsupportError` if the shape is not a plain Llama or its vocabulary is too small for the bytes.
    """
    import gguf

    if shape.architecture != "llama" or shape.qkv_bias or shape.vocabulary < _SMALLEST_VOCABULARY:
        raise LabsupportError(
            f"No synthetic model can be made of a {shape.architecture} with {shape.vocabulary} tokens.",
            allowed=f"a Llama without biases and at least {_SMALLEST_VOCABULARY} tokens",
        )
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{form.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    write_shape(writer, shape, rope_theta=500_000.0, norm_epsilon=1e-5)
    _write_vocabulary(writer, shape.vocabulary)
    tensors = list(tensor_shapes(shape))
    for tensor, dimensions in tensors:
        if len(dimensions) == 2:
            stored = format_named(tensor_format(shape, form, tensor))
            nbytes = dimensions[0] * stored.bytes_for(dimensions[1])
            kind = gguf.GGMLQuantizationType(stored.ggml_id)
            writer.add_tensor_info(tensor, dimensions, np.dtype(np.float16), nbytes, raw_dtype=kind)
        else:
            writer.add_tensor_info(tensor, dimensions, np.dtype(np.float32), 4 * dimensions[0])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        out = writer.fout[0]
        writer.write_padding(out, out.tell())
        for number, (tensor, dimensions) in enumerate(tensors):
            if len(dimensions) == 2:
                random = np.random.Generator(np.random.SFC64([seed, number]))
                for block in _random_weights(
                    random, tensor_format(shape, form, tensor), dimensions[0] * dimensions[1]
                ):
                    block.tofile(out)
            else:
                np.ones(dimensions, dtype=np.float32).tofile(out)
            writer.write_padding(out, out.tell())
    finally:
        writer.close()


def tensor_shapes(shape: ModelShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and dimensions (rows first) of every tensor, in the order of the file."""
    hidden, queries, keys = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield "token_embd.weight", (shape.vocabulary, hidden)
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_norm.weight", (hidden,)
        yield f"blk.{layer}.attn_q.weight", (queries, hidden)
        yield f"blk.{layer}.attn_k.weight", (keys, hidden)
        yield f"blk.{layer}.attn_v.weight", (keys, hidden)
        yield f"blk.{layer}.attn_output.weight", (hidden, queries)
        yield f"blk.{layer}.ffn_norm.weight", (hidden,)
        yield f"blk.{layer}.ffn_gate.weight", (shape.ffn, hidden)
        yield f"blk.{layer}.ffn_up.weight", (shape.ffn, hidden)
        yield f"blk.{layer}.ffn_down.weight", (hidden, shape.ffn)
    yield "output_norm.weight", (hidden,)
    if not shape.tied_embeddings:
        yield "output.weight", (shape.vocabulary, hidden)


def _random_weights(random: np.random.Generator, form: str, weights: int) -> Iterator[np.ndarray[Any, Any]]:
    """That many weights as they lie in the file, a piece at a time."""
    while weights:
        count = min(weights, _BLOCK_WEIGHTS)
        if form in ("bf16", "f16"):
            piece = random.standard_normal(count, dtype=np.float32)
            piece *= np.float32(_DEVIATION)
            yield to_bf16(piece) if form == "bf16" else piece.astype(np.float16)
        else:
            yield random_blocks(random, form, count, deviation=_DEVIATION)
        weights -= count


def _write_vocabulary(writer: Any, vocabulary: int) -> None:
    normal, control = 1, 3
    tokens = [*_byte_texts(), *_SPECIAL, "ĠĠ"]
    kinds = [normal] * 256 + [control] * len(_SPECIAL) + [normal]
    fillers = range(len(tokens), vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens + [f"Ġ{number}" for number in fillers])
    writer.add_token_types(kinds + [normal] * len(fillers))
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(258)
    writer.add_pad_token_id(256)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(_CHAT_TEMPLATE)


def _byte_texts() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE (as GPT-2 chose them), by byte."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    texts, next_free = [], 256
    for byte in range(256):
        if byte in printable:
            texts.append(chr(byte))
        else:
            texts.append(chr(next_free))
            next_free += 1
    return texts
