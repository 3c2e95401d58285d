"""llama.cpp as a runner: one batch per step for all sequences, through its low-level interface.

Right means: nothing reaches llama.cpp that would make it abort. It asserts, and so ends the process, on a
batch that is too large, on logits that were not asked for and on sharing part of a sequence between
separate caches; so the cache is unified and every plan is checked first.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labsupport.engine.runners.threads import ThreadPolicy, waiting

os.environ.update(waiting(os.environ))  # before the library loads its OpenMP

import llama_cpp

from labsupport.anatomy import gguf_header
from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import SamplingParams
from labsupport.engine.plan import CellsExhausted, Copy, Draw, Drawn, Free, Plan, Row, Share
from labsupport.engine.runners.llama_batch import LlamaBatch
from labsupport.engine.runners.llama_grammar import HeldGrammars
from labsupport.engine.runners.llama_loading import (
    SMALL_BYTES,
    ModelRefused,
    is_on_cpu,
    last_words,
    limits_of,
    load_model,
    logged_mib,
    open_backend,
    open_context,
    reason,
)
from labsupport.engine.runners.llama_vocabulary import LlamaVocabulary
from labsupport.engine.runners.neighbours import DecodeThreads
from labsupport.engine.sampling import Logits, draw, is_argmax

_TILE_TOKENS = 64
"""GGML_FA_TILE_Q of ggml's `ggml-cpu/common.h`: from so many tokens on, a batch's attention goes by tiles."""


class LlamaRunner:
    """A GGUF model on llama.cpp.

    Raises ModelFileError for a damaged file, and ModelRefused where llama.cpp does not take a whole one.
    """

    def __init__(self, config: EngineConfig) -> None:
        gguf_header.read(config.model)  # raises what llama.cpp might not survive
        open_backend()
        self._context: Any = None
        self._model = load_model(config)
        vocabulary = LlamaVocabulary(llama_cpp.llama_model_get_vocab(self._model))
        self.end_tokens, self.piece = vocabulary.end_tokens, vocabulary.piece
        self.limits = limits_of(self._model, config, vocabulary_size=vocabulary.size)
        self._threads = ThreadPolicy.of(config.threads, config.prompt_threads)
        self._context = open_context(self._model, config, self.limits, threads=self._threads.decode)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = LlamaBatch(self.limits.step_tokens)
        self._lengths = [0] * self.limits.max_slots
        self._logits_view, self._logits_address = np.empty((0, 0), np.float32), 0
        # What cannot be taken back token by token must not be computed in parts.
        self._may_part = is_on_cpu(config) and self.limits.prefix_sharing == "alias"
        self._grammars = HeldGrammars(vocabulary)
        self.weights_bytes = int(llama_cpp.llama_model_size(self._model))
        self.kv_bytes, self.compute_bytes = logged_mib("KV buffer size"), logged_mib("compute buffer size")
        self.warm_up_seconds = self._warm_up(self._threads.decode, 1)
        if self.weights_bytes < SMALL_BYTES:
            self._threads = self._threads.tried(
                self._warm_up, sequences=config.slots, spare_cores=config.spare_cores
            )
        self._decode_threads = DecodeThreads(self._threads.decode)

    def step(self, plan: Plan) -> list[Drawn]:
        """Execute a plan. Raises CellsExhausted, and RuntimeError where llama.cpp refuses the batch."""
        for operation in plan.operations:
            self._operate(operation)
        self._grammars.keep({row.slot for row in plan.rows if row.draw})
        if not plan.rows:
            return []
        self._refuse_impossible(plan.rows)
        outputs: dict[int, Drawn | Logits] = {}
        computed: list[Row] = []
        for rows in self._batches(plan.rows):
            try:
                outputs |= self._compute(rows)
            except CellsExhausted:
                for row in computed:
                    self._take_back(row)
                raise
            computed += rows
        return [self._drawn(row, row.draw, outputs[row.slot]) for row in plan.rows if row.draw]

    def _batches(self, rows: Sequence[Row]) -> list[list[Row]]:
        """A step's decodes and prompts apart, where together they would be slow.

        On the CPU, attention goes through a batch of `_TILE_TOKENS` or more in tiles of so many queries, and
        through every cell that any query of a tile may look at. A decode among the tokens of a prompt makes
        the whole tile look at the decode's sequence as well, and at the others'.
        """
        decodes = [row for row in rows if len(row.tokens) == 1]
        prompts = [row for row in rows if len(row.tokens) > 1]
        is_tiled = sum(len(row.tokens) for row in rows) >= _TILE_TOKENS
        return [prompts, decodes] if decodes and prompts and is_tiled and self._may_part else [list(rows)]

    def _compute(self, rows: Sequence[Row]) -> dict[int, Drawn | Logits]:
        """Execute rows in one batch. Of each slot that is to draw: its token if that is the likeliest, else
        its logits, which the next batch would overwrite.
        """
        self._batch.fill(rows)
        status = self._decode([len(row.tokens) for row in rows])
        if status == 1:
            raise CellsExhausted
        if status:
            raise RuntimeError(f"llama_decode returned {status}: {last_words()}")
        for row in rows:
            self._lengths[row.slot] += len(row.tokens)
        draws = [(row.slot, row.draw) for row in rows if row.draw]
        if not draws:
            return {}
        logits = self._logits()[: len(draws)]
        likeliest = logits.argmax(axis=1).tolist() if len(draws) > 1 else [int(logits[0].argmax())]
        return {
            slot: Drawn(best) if is_argmax(how.params) else own.copy()
            for (slot, how), best, own in zip(draws, likeliest, logits, strict=True)
        }

    def _logits(self) -> NDArray[np.float32]:
        """What llama.cpp computed last, of shape (slots, vocabulary): a view, made anew where that moved."""
        pointer = llama_cpp.llama_get_logits(self._context)
        if (address := ctypes.addressof(pointer.contents)) != self._logits_address:
            shape = (self.limits.max_slots, self.limits.vocabulary_size)  # it has an output for each sequence
            self._logits_view = np.ctypeslib.as_array(pointer, shape=shape)
            self._logits_address = address
        return self._logits_view

    def _decode(self, row_lengths: list[int]) -> int:
        """Execute the batch with as many threads as suit it; what llama.cpp returns."""
        threads = self._threads.for_step(row_lengths)
        learns = threads == self._threads.decode and max(row_lengths) == 1
        self._take_threads(self._decode_threads.count if learns else threads)
        began = time.monotonic()
        status = int(llama_cpp.llama_decode(self._context, self._batch.native))
        if learns and not status:  # a refusal takes no time, and says nothing
            self._decode_threads.took(len(row_lengths), time.monotonic() - began)
        return status

    def _take_back(self, row: Row) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, row.slot, row.start, -1)
        self._lengths[row.slot] = row.start

    def _drawn(self, row: Row, how: Draw, output: Drawn | Logits) -> Drawn:
        if isinstance(output, Drawn):
            return output
        constraint = self._grammars.constraint(row.slot, how) if how.params.grammar else None
        return draw(output, how, constraint)

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

    # Loading

    def _warm_up(self, threads: int, tokens: int) -> float:
        """Run one token in each of the first `tokens` slots, so that the first request does not pay for page
        faults and lazy allocations. Says how long it took, in seconds.
        """
        last = Draw(SamplingParams(max_tokens=1), 0, 0)
        self._batch.fill([Row(slot, 0, [0], last) for slot in range(tokens)])
        self._take_threads(threads)
        begin = time.monotonic()
        if llama_cpp.llama_decode(self._context, self._batch.native):
            raise ModelRefused(f"the model loaded but computes nothing: {reason()}")
        llama_cpp.llama_synchronize(self._context)
        elapsed = time.monotonic() - begin
        llama_cpp.llama_memory_clear(self._memory, False)
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
