"""llama.cpp as a runner: one batch per step for all sequences, through its low-level interface.

Right means: nothing reaches llama.cpp that would make it abort. It asserts, and so ends the process, on a
batch that is too large, on logits that were not asked for and on sharing part of a sequence between
separate caches; so the cache is unified and every plan is checked first.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labsupport.engine.runners.threads import ThreadPolicy, waiting

os.environ.update(waiting(os.environ))  # before the library loads its OpenMP

import llama_cpp

from labsupport.anatomy import gguf_header
from labsupport.engine.config import EngineConfig
from labsupport.engine.plan import CellsExhausted, Copy, Draw, Drawn, Free, Plan, Row, RunnerLimits, Share
from labsupport.engine.runners.llama_grammar import HeldGrammars
from labsupport.engine.runners.llama_vocabulary import LlamaVocabulary
from labsupport.engine.sampling import Constraint, draw, is_argmax
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

_log: deque[str] = deque(maxlen=400)


@llama_cpp.llama_log_callback
def _keep_log(level: int, text: bytes, _user_data: Any) -> None:
    _log.append(text.decode(errors="replace"))


def selection(config: EngineConfig) -> Selection:
    """Which device this build of llama.cpp takes on this machine, and why."""
    return select(
        config.engine,
        has_cuda=nvidia.is_present(),
        is_metal=sys.platform == "darwin" and platform.machine() == "arm64",
        llama_offloads=bool(llama_cpp.llama_supports_gpu_offload()),
        n_gpu_layers=config.n_gpu_layers,
    )


class ModelRefused(LabsupportError):
    """A whole file that llama.cpp cannot serve as asked."""


class LlamaRunner:
    """A GGUF model on llama.cpp.

    Raises ModelFileError for a damaged file, and ModelRefused where llama.cpp does not take a whole one.
    """

    def __init__(self, config: EngineConfig) -> None:
        gguf_header.read(config.model)  # raises what llama.cpp might not survive
        llama_cpp.llama_log_set(_keep_log, ctypes.c_void_p(0))
        _log.clear()
        llama_cpp.llama_backend_init()
        self._context: Any = None
        self._model = self._load(config)
        vocabulary = LlamaVocabulary(llama_cpp.llama_model_get_vocab(self._model))
        self.end_tokens, self.piece = vocabulary.end_tokens, vocabulary.piece
        self.limits = self._limits(config, vocabulary.size)
        self._threads = ThreadPolicy.of(config.threads, config.prompt_threads)
        self._context = self._open(config)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._columns = _batch_columns(self.limits.step_tokens)
        self._batch = _batch_of(self._columns)
        self._lengths = [0] * self.limits.max_slots
        self._grammars = HeldGrammars(vocabulary)
        self.weights_bytes = int(llama_cpp.llama_model_size(self._model))
        self.kv_bytes, self.compute_bytes = _logged_mib("KV buffer size"), _logged_mib("compute buffer size")
        self.warm_up_seconds = self._warm_up(self._threads.decode)
        self._threads = self._threads.tried(lambda count: min(self._warm_up(count) for _ in range(3)))

    def step(self, plan: Plan) -> list[Drawn]:
        """Execute a plan. Raises CellsExhausted, and RuntimeError where llama.cpp refuses the batch."""
        for operation in plan.operations:
            self._operate(operation)
        self._grammars.keep({row.slot for row in plan.rows if row.draw})
        if not plan.rows:
            return []
        self._refuse_impossible(plan.rows)
        self._fill(plan.rows)
        self._take_threads(self._threads.for_step([len(row.tokens) for row in plan.rows]))
        status = llama_cpp.llama_decode(self._context, self._batch)
        if status == 1:
            raise CellsExhausted
        if status:
            raise RuntimeError(f"llama_decode returned {status}: {''.join(list(_log)[-5:]).strip()}")
        for row in plan.rows:
            self._lengths[row.slot] += len(row.tokens)
        draws = [(row.slot, row.draw) for row in plan.rows if row.draw]
        if not draws:
            return []
        logits = np.ctypeslib.as_array(
            llama_cpp.llama_get_logits(self._context), shape=(len(draws), self.limits.vocabulary_size)
        )
        greedy = logits.argmax(axis=1).tolist() if len(draws) > 1 else [int(logits[0].argmax())]
        return [
            Drawn(best) if is_argmax(how.params) else draw(row, how, self._constraint(slot, how))
            for best, row, (slot, how) in zip(greedy, logits, draws, strict=True)
        ]

    def read_grammar(self, text: str) -> object:
        """See `plan.ReadsGrammars`."""
        return self._grammars.read(text)

    def close(self) -> None:
        """Free the model and its cache. Safe to repeat."""
        if self._context:
            self._grammars.close()
            llama_cpp.llama_free(self._context)
            llama_cpp.llama_model_free(self._model)
            self._context = None

    def _constraint(self, slot: int, how: Draw) -> Constraint | None:
        return self._grammars.constraint(slot, how) if how.params.grammar else None

    # Loading

    def _load(self, config: EngineConfig) -> Any:
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 10_000 if config.n_gpu_layers < 0 else config.n_gpu_layers
        model = llama_cpp.llama_model_load_from_file(os.fsencode(config.model), params)
        if not model:
            raise ModelRefused(
                f"llama.cpp cannot load {config.model}: {_reason()}",
                remedy="Make or pull it again: `labsupport models path NAME --quant Q`.",
            )
        if llama_cpp.llama_model_has_encoder(model) or not llama_cpp.llama_model_has_decoder(model):
            raise ModelRefused(f"{config.model} is not a decoder-only model", allowed="a decoder-only model")
        return model

    def _limits(self, config: EngineConfig, vocabulary_size: int) -> RunnerLimits:
        trained = int(llama_cpp.llama_model_n_ctx_train(self._model))
        context = config.context_tokens or min(trained, _LARGEST_DEFAULT_CONTEXT)
        if context > trained:
            raise ModelRefused(
                f"context_tokens is {context}",
                allowed=f"at most {trained}, what {config.model} was trained for",
            )
        keeps_every_token = not (
            llama_cpp.llama_model_is_recurrent(self._model)
            or llama_cpp.llama_model_is_hybrid(self._model)
            or llama_cpp.llama_model_n_swa(self._model)
        )
        return RunnerLimits(
            max_slots=config.slots + config.prefix_slots,
            cells=config.kv_cells or max(context, min(config.slots * context, _LARGEST_DEFAULT_CELLS)),
            context_tokens=context,
            step_tokens=config.step_tokens,
            vocabulary_size=vocabulary_size,
            prefix_sharing="alias" if keeps_every_token else "none",
            grammars=True,
        )

    def _open(self, config: EngineConfig) -> Any:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = self.limits.cells
        params.n_seq_max = self.limits.max_slots
        params.kv_unified = True
        # llama.cpp reserves one output per sequence and asserts that a batch has room for them.
        params.n_batch = params.n_ubatch = max(self.limits.step_tokens, self.limits.max_slots)
        params.n_threads = params.n_threads_batch = self._threads.decode
        params.type_k = params.type_v = _KV_TYPES[config.kv_type]
        params.offload_kqv = config.n_gpu_layers != 0
        params.no_perf = True
        context = llama_cpp.llama_init_from_model(self._model, params)
        if not context:
            raise ModelRefused(
                f"llama.cpp cannot make a {config.kv_type} cache of {self.limits.cells} tokens for "
                f"{config.model}: {_reason()}",
                remedy="Ask for fewer kv_cells or a shorter context, or for kv_type f16.",
            )
        return context

    def _warm_up(self, threads: int) -> float:
        """Run one token, so that the first request does not pay for page faults and lazy allocations.

        Says how long it took, in seconds.
        """
        self._columns.tokens[0] = 0
        self._columns.positions[0] = 0
        self._columns.slots[0] = 0
        self._columns.wants_logits[0] = 1
        self._batch.n_tokens = 1
        self._take_threads(threads)
        begin = time.monotonic()
        if llama_cpp.llama_decode(self._context, self._batch):
            raise ModelRefused(f"the model loaded but computes nothing: {_reason()}")
        llama_cpp.llama_synchronize(self._context)
        elapsed = time.monotonic() - begin
        llama_cpp.llama_memory_clear(self._memory, True)
        return elapsed

    # Stepping

    def _operate(self, operation: Share | Copy | Free) -> None:
        slots = (operation.slot,) if isinstance(operation, Free) else (operation.source, operation.target)
        if not all(0 <= slot < self.limits.max_slots for slot in slots):
            raise ValueError(f"there are {self.limits.max_slots} slots: {operation}")
        if isinstance(operation, Free):
            llama_cpp.llama_memory_seq_rm(self._memory, operation.slot, -1, -1)
            self._grammars.drop(operation.slot)
            self._lengths[operation.slot] = 0
        elif isinstance(operation, Share):
            if not 0 < operation.length <= self._lengths[operation.source] or self._lengths[operation.target]:
                raise ValueError(f"impossible cache operation: {operation}")
            llama_cpp.llama_memory_seq_cp(
                self._memory, operation.source, operation.target, 0, operation.length
            )
            self._lengths[operation.target] = operation.length
        else:
            raise ValueError(f"llama.cpp shares prefixes by alias: {operation}")

    def _take_threads(self, count: int) -> None:
        """llama.cpp has two counts of its own: for a batch of one token, and for all others, decodes of many
        included. So both are set, when what a step does changes."""
        if count != llama_cpp.llama_n_threads(self._context):
            llama_cpp.llama_set_n_threads(self._context, count, count)

    def _refuse_impossible(self, rows: tuple[Row, ...]) -> None:
        """Refuse what llama.cpp would answer with an abort or with nonsense. (Token ids it checks itself.)"""
        if sum(len(row.tokens) for row in rows) > self.limits.step_tokens:
            raise ValueError(f"more than {self.limits.step_tokens} tokens in a step")
        if len({row.slot for row in rows}) < len(rows):
            raise ValueError("two rows of one slot in a step")
        for row in rows:
            if not 0 <= row.slot < self.limits.max_slots or not row.tokens:
                raise ValueError(f"there are {self.limits.max_slots} slots, and a row is not empty: {row}")
            if row.start != self._lengths[row.slot]:
                raise ValueError(f"the slot holds {self._lengths[row.slot]} tokens: {row}")

    def _fill(self, rows: tuple[Row, ...]) -> None:
        columns, place = self._columns, 0
        columns.wants_logits[:] = 0
        for row in rows:
            end = place + len(row.tokens)
            columns.tokens[place:end] = row.tokens
            columns.positions[place:end] = range(row.start, row.start + len(row.tokens))
            columns.slots[place:end] = row.slot
            columns.wants_logits[end - 1] = row.draw is not None
            place = end
        self._batch.n_tokens = place


@dataclass(frozen=True, slots=True)
class _Columns:
    """A batch's arrays, which a step fills without a loop over tokens. `slot_pointers` point into `slots`."""

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    slots: NDArray[np.int32]
    slot_counts: NDArray[np.int32]
    slot_pointers: NDArray[np.uintp]
    wants_logits: NDArray[np.int8]


def _batch_columns(size: int) -> _Columns:
    slots = np.zeros(size, dtype=np.int32)
    return _Columns(
        tokens=np.zeros(size, dtype=np.int32),
        positions=np.zeros(size, dtype=np.int32),
        slots=slots,
        slot_counts=np.ones(size, dtype=np.int32),
        slot_pointers=(slots.ctypes.data + slots.itemsize * np.arange(size)).astype(np.uintp),
        wants_logits=np.zeros(size, dtype=np.int8),
    )


def _batch_of(columns: _Columns) -> Any:
    """A llama_batch over these arrays; it owns nothing, so it is never freed."""
    fields = dict(llama_cpp.llama_batch._fields_)
    return llama_cpp.llama_batch(
        token=columns.tokens.ctypes.data_as(fields["token"]),
        pos=columns.positions.ctypes.data_as(fields["pos"]),
        n_seq_id=columns.slot_counts.ctypes.data_as(fields["n_seq_id"]),
        seq_id=columns.slot_pointers.ctypes.data_as(fields["seq_id"]),
        logits=columns.wants_logits.ctypes.data_as(fields["logits"]),
    )


def _reason() -> str:
    """The first complaint in llama.cpp's log: the later ones only say that it gave up."""
    lines = [line.strip() for line in "".join(_log).splitlines() if "error" in line or "fail" in line]
    return lines[0] if lines else "it gives no reason (perhaps there is too little memory)"


def _logged_mib(what: str) -> int:
    """The bytes that llama.cpp reported in its log, summed over devices."""
    found = [line.split("=")[1].split("MiB")[0] for line in "".join(_log).splitlines() if what in line]
    return round(sum(float(mib) for mib in found) * 2**20)
