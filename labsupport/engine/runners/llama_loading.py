"""A GGUF file as llama.cpp's model and context: what can be served of it, and with which limits.

Right means: what llama.cpp cannot do is refused in words that say what was asked for and what would do.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections import deque
from typing import Any

import llama_cpp

from labsupport.engine.config import EngineConfig
from labsupport.engine.plan import DEFAULT_STEP_TOKENS, RunnerLimits
from labsupport.engine.selection import Selection, select
from labsupport.errors import LabsupportError
from labsupport.machine import nvidia

_KV_TYPES = {
    "f16": llama_cpp.GGML_TYPE_F16,
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "q4_0": llama_cpp.GGML_TYPE_Q4_0,
}
_LARGEST_DEFAULT_CONTEXT = 4096
_LARGEST_DEFAULT_CELLS = 16384
SMALL_BYTES = 64 * 2**20
_STEP_TOKENS = {SMALL_BYTES: 2048, 256 * 2**20: 512}
"""Of models with weights of less than so many bytes, so many tokens of prompts take a second or two on few
cores. The more there are in a step, the more requests end together, leave their cells in one piece, and have
gaps between tokens in which nobody's prompt is computed."""
_UBATCH_TOKENS = 512
"""What llama.cpp computes at once, its own default. (Whole steps were slower: `benchmarks/README.md`.)"""

_DEBUG = 1
"""GGML_LOG_LEVEL_DEBUG of ggml's `ggml.h`: a line for each tensor, and more."""

_log: deque[str] = deque(maxlen=400)


@llama_cpp.llama_log_callback
def _keep_log(level: int, text: bytes, _user_data: Any) -> None:
    if level != _DEBUG:
        _log.append(text.decode(errors="replace"))


def open_backend() -> None:
    """Make llama.cpp ready, with an empty log of what it says."""
    llama_cpp.llama_log_set(_keep_log, ctypes.c_void_p(0))
    _log.clear()
    llama_cpp.llama_backend_init()


def selection(config: EngineConfig) -> Selection:
    """Which device this build of llama.cpp takes on this machine, and why."""
    return select(
        config.engine,
        has_cuda=nvidia.is_present(),
        is_metal=sys.platform == "darwin" and platform.machine() == "arm64",
        llama_offloads=bool(llama_cpp.llama_supports_gpu_offload()),
        n_gpu_layers=config.n_gpu_layers,
    )


def is_on_cpu(config: EngineConfig) -> bool:
    """Whether no layer of the model will be on a GPU."""
    return not (config.n_gpu_layers and llama_cpp.llama_supports_gpu_offload())


class ModelRefused(LabsupportError):
    """A whole file that llama.cpp cannot serve as asked."""


def load_model(config: EngineConfig) -> Any:
    """The file as llama.cpp's model. Raises ModelRefused."""
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 10_000 if config.n_gpu_layers < 0 else config.n_gpu_layers
    if is_on_cpu(config):
        # What the CPU computes with is repacked: a mapped file would stay in memory beside that copy.
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
    model = llama_cpp.llama_model_load_from_file(os.fsencode(config.model), params)
    if not model:
        raise ModelRefused(
            f"llama.cpp cannot load {config.model}: {reason()}",
            remedy="Make or pull it again: `labsupport models path NAME --quant Q`.",
        )
    if llama_cpp.llama_model_has_encoder(model) or not llama_cpp.llama_model_has_decoder(model):
        raise ModelRefused(f"{config.model} is not a decoder-only model", allowed="a decoder-only model")
    return model


def limits_of(model: Any, config: EngineConfig, *, vocabulary_size: int) -> RunnerLimits:
    """What a context of this model is to hold. Raises ModelRefused."""
    trained = int(llama_cpp.llama_model_n_ctx_train(model))
    context = config.context_tokens or min(trained, _LARGEST_DEFAULT_CONTEXT)
    if context > trained:
        raise ModelRefused(
            f"context_tokens is {context}",
            allowed=f"at most {trained}, what {config.model} was trained for",
        )
    keeps_every_token = not (
        llama_cpp.llama_model_is_recurrent(model)
        or llama_cpp.llama_model_is_hybrid(model)
        or llama_cpp.llama_model_n_swa(model)
    )
    size = llama_cpp.llama_model_size(model)
    step_tokens = next((tokens for most, tokens in _STEP_TOKENS.items() if size < most), DEFAULT_STEP_TOKENS)
    return RunnerLimits(
        max_slots=config.slots + config.prefix_slots,
        cells=config.kv_cells or max(context, min(config.slots * context, _LARGEST_DEFAULT_CELLS)),
        context_tokens=context,
        step_tokens=config.step_tokens or max(step_tokens, config.slots),
        vocabulary_size=vocabulary_size,
        prefix_sharing="alias" if keeps_every_token else "none",
        grammars=True,
    )


def open_context(model: Any, config: EngineConfig, limits: RunnerLimits, *, threads: int) -> Any:
    """llama.cpp's context with a cache for these limits. Raises ModelRefused."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = limits.cells
    params.n_seq_max = limits.max_slots
    params.kv_unified = True
    # llama.cpp reserves one output per sequence and asserts that a batch has room for them.
    params.n_batch = max(limits.step_tokens, limits.max_slots)
    params.n_ubatch = max(min(limits.step_tokens, _UBATCH_TOKENS), limits.max_slots)
    params.n_threads = params.n_threads_batch = threads
    params.type_k = params.type_v = _KV_TYPES[config.kv_type]
    params.offload_kqv = config.n_gpu_layers != 0
    params.no_perf = True
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        raise ModelRefused(
            f"llama.cpp cannot make a {config.kv_type} cache of {limits.cells} tokens for "
            f"{config.model}: {reason()}",
            remedy="Ask for fewer kv_cells or a shorter context, or for kv_type f16.",
        )
    return context


def reason() -> str:
    """The first complaint in llama.cpp's log: the later ones only say that it gave up."""
    lines = [line.strip() for line in "".join(_log).splitlines() if "error" in line or "fail" in line]
    return lines[0] if lines else "it gives no reason (perhaps there is too little memory)"


def logged_mib(what: str) -> int:
    """The bytes that llama.cpp reported in its log, summed over devices."""
    found = [line.split("=")[1].split("MiB")[0] for line in "".join(_log).splitlines() if what in line]
    return round(sum(float(mib) for mib in found) * 2**20)


def last_words() -> str:
    """The end of llama.cpp's log."""
    return "".join(list(_log)[-5:]).strip()
