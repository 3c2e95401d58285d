"""A checkpoint as transformers and bitsandbytes load it, or the reason why it cannot be served here.

Right means: every weight comes from the file (transformers would make up a missing one), and a model whose
attention is not the plain causal kind is refused, because the slot cache would compute something else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from labsupport.engine.runners.bnb.attention import SLOT_ATTENTION, attend
from labsupport.errors import LabsupportError
from labsupport.models.gguf_layout import ARCHITECTURES

_ROPE_TYPES_OF_EACH_POSITION = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose angle hangs on the token's position alone. With `dynamic` or `longrope` it hangs on
the longest sequence of the batch too, so a sequence's text would depend on its company."""
_VERIFY = "`labsupport models verify NAME` checks a model's files and says how to get them again."


class ModelRefused(LabsupportError):
    """A checkpoint that this runner cannot serve as asked."""


def load(checkpoint: Path, quantization: str, device: torch.device) -> Any:
    """The model on its device, ready to run. `quantization` is nf4, int8, bf16 or fp32.

    nf4: matrices in 4-bit NormalFloat with double quantization (Dettmers et al. 2023, QLoRA,
    https://arxiv.org/abs/2305.14314). int8: rows and activations in 8 bits, without a threshold for outliers,
    whose search would wait for the GPU at every layer. Both leave embedding, norms and output matrix in the
    format that is computed in: bf16 on CUDA, fp32 on a CPU, where bf16 is slower.

    Raises ModelRefused.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    # It warns at every product of matrices that its input is not fp16, which is so by choice.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    ALL_ATTENTION_FUNCTIONS.register(SLOT_ATTENTION, attend)
    try:
        config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
        _refuse_unknown_attention(checkpoint, config)
        model, report = AutoModelForCausalLM.from_pretrained(
            checkpoint,
            config=config,
            dtype=compute_dtype(quantization, device),
            device_map={"": str(device)},
            attn_implementation=SLOT_ATTENTION,
            quantization_config=quantization_config(quantization, device),
            local_files_only=True,
            output_loading_info=True,
        )
    except LabsupportError:
        raise
    except torch.cuda.OutOfMemoryError as error:
        raise ModelRefused(
            f"{checkpoint} in {quantization} does not fit into the GPU's memory: {error}",
            remedy="Ask for fewer bits (--quant nf4), or stop what else uses this GPU: see `nvidia-smi`.",
        ) from error
    except Exception as error:  # transformers raises whatever it meets
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelRefused(
            f"transformers cannot load {checkpoint}: {reason}",
            remedy=_VERIFY,
        ) from error
    for name in ("missing_keys", "mismatched_keys"):
        if lacking := sorted(report[name]):
            raise ModelRefused(
                f"{checkpoint} lacks {len(lacking)} of the model's tensors, {lacking[0]} first",
                remedy=_VERIFY,
            )
    return model.eval()


def stored_bytes(model: Any) -> int:
    """Bytes of all weights as they lie in memory, with the scales of the quantized ones."""
    return sum(tensor.nbytes for tensor in _stored(model))


def _stored(model: Any) -> Iterator[torch.Tensor]:
    yield from model.buffers()
    for weight in model.parameters():
        yield weight
        scales = getattr(weight, "SCB", None)  # int8: one scale per row
        if scales is not None:
            yield scales
        state = getattr(weight, "quant_state", None)  # nf4: scales per block, themselves quantized
        if state is not None:
            parts = (state.absmax, state.offset, state.state2 and state.state2.absmax)
            yield from (part for part in parts if part is not None)


def compute_dtype(quantization: str, device: torch.device) -> torch.dtype:
    """What a model loaded in `quantization` computes in, and keeps what is not quantized in."""
    if quantization == "fp32" or (quantization != "bf16" and device.type == "cpu"):
        return torch.float32
    return torch.bfloat16


def quantization_config(quantization: str, device: torch.device) -> Any:
    """What transformers is told to quantize with; None for bf16 and fp32."""
    from transformers import BitsAndBytesConfig

    if quantization == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype(quantization, device),
        )
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return None


def _refuse_unknown_attention(checkpoint: Path, config: Any) -> None:
    if config.model_type not in ARCHITECTURES:
        raise ModelRefused(
            f"the architecture of {checkpoint} is {config.model_type}", allowed=", ".join(ARCHITECTURES)
        )
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention"} or (not kinds and getattr(config, "sliding_window", None)):
        raise ModelRefused(
            f"{checkpoint} has layers that attend to a sliding window",
            allowed="full attention in every layer",
        )
    rope = config.rope_parameters["rope_type"]
    if rope not in _ROPE_TYPES_OF_EACH_POSITION:
        raise ModelRefused(
            f"the rotary embedding of {checkpoint} is of type {rope!r}",
            allowed=", ".join(_ROPE_TYPES_OF_EACH_POSITION),
        )
