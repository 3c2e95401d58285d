"""transformers and bitsandbytes as a runner: one forward pass per step for all sequences.

Right means: the greedy text of every request is what `generate` gives for it alone, whoever joins and leaves
beside it (as far as the logits are the same: the company of a sequence moves them by rounding).

`generate` runs a batch that starts and ends together. Here the model's own modules are run on the tokens that
the scheduler plans, over a cache of slots. Where a GPU runs decode steps alone, they are CUDA graphs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import SamplingParams
from labsupport.engine.plan import (
    DEFAULT_STEP_TOKENS,
    CellsExhausted,
    Copy,
    Draw,
    Drawn,
    Free,
    Plan,
    Row,
    RunnerLimits,
    Share,
)
from labsupport.engine.runners.bnb.attention import StepLayout, mixed_layout
from labsupport.engine.runners.bnb.device_sampling import draw_rows
from labsupport.engine.runners.bnb.loading import ModelRefused, load, stored_bytes
from labsupport.engine.runners.bnb.slot_cache import SlotCache
from labsupport.engine.runners.bnb.vocabulary import Vocabulary
from labsupport.engine.runners.threads import thread_count
from labsupport.engine.selection import Selection, bnb_selection

_LARGEST_DEFAULT_CONTEXT = 4096
_SHORTEST_CONTEXT = 256
_CACHE_SHARE_OF_FREE_MEMORY = 0.8
"""What is left of a GPU's memory after the weights also holds activations, graphs and the library's own."""
_WITH_GRAPHS = ("nf4", "bf16", "fp32")
"""bitsandbytes' int8 product is left out: recording it has not been tried on a GPU."""
_GREEDY = Draw(SamplingParams(max_tokens=1, temperature=0), 0, 0)


def selection(config: EngineConfig) -> Selection:
    """Which device this build of torch takes on this machine, and why."""
    return bnb_selection(
        config.engine,
        config.quantization,
        has_cuda=torch.cuda.is_available(),
        n_gpu_layers=config.n_gpu_layers,
    )


class BnbRunner:
    """A Hugging Face checkpoint on transformers, in NF4, INT8, bf16 or fp32.

    Raises ModelRefused for a checkpoint that cannot be served so, ModelFileError for a broken tokenizer.
    """

    def __init__(self, config: EngineConfig) -> None:
        chosen = selection(config)
        self._device = torch.device("cuda", 0) if chosen.device == "cuda" else torch.device("cpu")
        if self._device.type == "cpu":
            torch.set_num_threads(thread_count(config.threads))
        else:
            # On Hopper, torch takes cuDNN's attention first, which builds a plan, for tens of milliseconds,
            # whenever it sees another length: for us that is nearly every chunk of a prompt.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self._model = load(Path(config.model), chosen.quantization, self._device)
        shape = self._model.config.get_text_config()
        self._dtype = self._model.dtype
        self._kv_heads = shape.num_key_value_heads
        self._groups = shape.num_attention_heads // self._kv_heads
        vocabulary = Vocabulary(Path(config.model), size=shape.vocab_size)
        self.end_tokens, self.piece = vocabulary.end_tokens, vocabulary.piece
        self.weights_bytes = stored_bytes(self._model)
        self.limits = self._limits(config, shape)
        self._cache = self._new_cache(shape)
        self.kv_bytes = self._cache.nbytes
        self.compute_bytes = 0
        self._graphs: Any = None
        begin = time.monotonic()
        self._warm_up([0])
        self.warm_up_seconds = time.monotonic() - begin
        if self._device.type == "cuda":
            self._prepare_gpu(with_graphs=chosen.quantization in _WITH_GRAPHS, largest_batch=config.slots)

    @torch.inference_mode()
    def step(self, plan: Plan) -> list[Drawn]:
        """Execute a plan. Raises ValueError for an impossible one, and CellsExhausted where a GPU lacks room.

        The cells have room for every plan; what can lack is room for a step's own intermediate results.
        """
        for operation in plan.operations:
            self._operate(operation)
        if not plan.rows:
            return []
        self._refuse_impossible(plan.rows)
        draws = [row.draw for row in plan.rows if row.draw]
        try:
            logits = self._logits(plan.rows)
            drawn = draw_rows(logits.float(), draws) if draws else []
        except torch.cuda.OutOfMemoryError:
            raise CellsExhausted from None
        for row in plan.rows:
            self._cache.extend(row.slot, len(row.tokens))
        return drawn

    def close(self) -> None:
        """Let go of the model and its cache. Safe to repeat."""
        self._model = self._graphs = self._cache = None  # type: ignore[assignment]
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    # Loading

    def _limits(self, config: EngineConfig, shape: Any) -> RunnerLimits:
        trained = int(shape.max_position_embeddings)
        slots = config.slots + config.prefix_slots
        context = config.context_tokens or self._default_context(trained, slots, shape)
        if context > trained:
            raise ModelRefused(
                f"context_tokens is {context}",
                allowed=f"at most {trained}, what {config.model} was trained for",
            )
        if config.kv_cells not in (0, slots * context):
            raise ModelRefused(
                f"kv_cells is {config.kv_cells}",
                allowed=f"{slots * context}, or 0, which takes as much: each of {slots} slots has a row of "
                f"{context} tokens of its own",
                remedy="Ask for a shorter context or fewer slots.",
            )
        return RunnerLimits(
            max_slots=slots,
            cells=slots * context,
            context_tokens=context,
            step_tokens=config.step_tokens or max(DEFAULT_STEP_TOKENS, config.slots),
            vocabulary_size=int(shape.vocab_size),
            prefix_sharing="copy",
        )

    def _default_context(self, trained: int, slots: int, shape: Any) -> int:
        """What the model was trained for, at most 4,096, and no more than a GPU has room for."""
        wanted = min(trained, _LARGEST_DEFAULT_CONTEXT)
        if self._device.type == "cpu":
            return wanted
        free_bytes, _ = torch.cuda.mem_get_info(self._device)
        numbers_per_token = 2 * shape.num_hidden_layers * self._kv_heads * _head_dim(shape)
        token_bytes = slots * numbers_per_token * self._dtype.itemsize
        fitting = int(_CACHE_SHARE_OF_FREE_MEMORY * free_bytes / token_bytes)
        fitting -= fitting % _SHORTEST_CONTEXT
        if fitting < min(wanted, _SHORTEST_CONTEXT):
            raise ModelRefused(
                f"beside the weights, the GPU has {free_bytes / 1e9:.1f} GB free, and {slots} slots of "
                f"{_SHORTEST_CONTEXT} tokens take {_SHORTEST_CONTEXT * token_bytes / 1e9:.1f} GB",
                remedy="Ask for fewer slots or fewer bits, or stop what else uses this GPU.",
            )
        return min(wanted, fitting)

    def _new_cache(self, shape: Any) -> SlotCache:
        try:
            return SlotCache(
                layers=shape.num_hidden_layers,
                num_slots=self.limits.max_slots,
                kv_heads=self._kv_heads,
                head_dim=_head_dim(shape),
                context_tokens=self.limits.context_tokens,
                dtype=self._dtype,
                device=self._device,
            )
        except RuntimeError as error:  # torch's own class for a lack of GPU memory is one
            raise ModelRefused(
                f"there is no memory for a KV cache of {self.limits.max_slots} slots of "
                f"{self.limits.context_tokens} tokens: {error}",
                remedy="Ask for a shorter context or fewer slots.",
            ) from error

    def _prepare_gpu(self, *, with_graphs: bool, largest_batch: int) -> None:
        """Run the largest step there can be and record the decode steps, so that no request pays for it."""
        from labsupport.engine.runners.bnb.cuda_graphs import DecodeGraphs

        before_bytes = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        self._warm_up([0] * min(self.limits.step_tokens, self.limits.context_tokens))
        if with_graphs:
            graphs = DecodeGraphs(self._forward, self._cache, largest_batch=largest_batch, dtype=self._dtype)
            try:
                with torch.inference_mode():
                    graphs.record_batches()
                self._graphs = graphs
            except RuntimeError as error:  # slower without, but no reason not to serve
                print(
                    f"decode steps run without CUDA graphs, which cannot be recorded: {error}",
                    file=sys.stderr,
                )
        self.compute_bytes = torch.cuda.max_memory_allocated(self._device) - before_bytes

    def _warm_up(self, tokens: list[int]) -> None:
        """Run some tokens, so that the first request does not pay for lazy allocations and libraries."""
        self.step(Plan(operations=(), rows=(Row(0, 0, tokens, _GREEDY),), sequences=()))
        self.step(Plan(operations=(Free(0),), rows=(), sequences=()))

    # Stepping

    def _operate(self, operation: Share | Copy | Free) -> None:
        slots = (operation.slot,) if isinstance(operation, Free) else (operation.source, operation.target)
        if not all(0 <= slot < self.limits.max_slots for slot in slots):
            raise ValueError(f"there are {self.limits.max_slots} slots: {operation}")
        if isinstance(operation, Free):
            self._cache.free(operation.slot)
        elif isinstance(operation, Copy):
            self._cache.copy(operation.source, operation.target, operation.length)
        else:
            raise ValueError(f"slots with rows of their own share prefixes by copy: {operation}")

    def _refuse_impossible(self, rows: Sequence[Row]) -> None:
        """Refuse what a GPU would answer with an error that ends its context, or with nonsense."""
        limits = self.limits
        if sum(len(row.tokens) for row in rows) > limits.step_tokens:
            raise ValueError(f"more than {limits.step_tokens} tokens in a step")
        if len({row.slot for row in rows}) < len(rows):
            raise ValueError("two rows of one slot in a step")
        for row in rows:
            if not 0 <= row.slot < limits.max_slots or not row.tokens:
                raise ValueError(f"there are {limits.max_slots} slots, and a row is not empty: {row}")
            if row.start != self._cache.length(row.slot):
                raise ValueError(f"the slot holds {self._cache.length(row.slot)} tokens: {row}")
            if row.start + len(row.tokens) > limits.context_tokens:
                raise ValueError(f"a slot holds at most {limits.context_tokens} tokens: {row}")
            if min(row.tokens) < 0 or max(row.tokens) >= limits.vocabulary_size:
                raise ValueError(f"the vocabulary has {limits.vocabulary_size} tokens: {row}")

    def _logits(self, rows: Sequence[Row]) -> torch.Tensor:
        """Run the rows; the logits after each that has a draw, in order: (draws, vocabulary)."""
        single = [row for row in rows if len(row.tokens) == 1]
        chunks = [row for row in rows if len(row.tokens) > 1]
        self._cache.bring_to_front([row.slot for row in single])
        ordered = sorted(single, key=lambda row: self._cache.row(row.slot)) + chunks
        tokens = [token for row in ordered for token in row.tokens]
        positions = [row.start + place for row in ordered for place in range(len(row.tokens))]
        ends, end = {}, 0  # of each slot, where in the step its last token is
        for row in ordered:
            end += len(row.tokens)
            ends[row.slot] = end - 1
        wanted = [ends[row.slot] for row in rows if row.draw]
        if self._graphs is not None and not chunks and len(single) <= self._graphs.largest_batch:
            logits: torch.Tensor = self._graphs.logits(tokens, positions)
            return logits[wanted]
        layout = mixed_layout(
            self._cache,
            self._tensor([self._cache.row(row.slot) for row in ordered for _ in row.tokens]),
            self._tensor(positions),
            decoding_positions=[row.start for row in single],
            chunk_spans=[(self._cache.row(row.slot), row.start, len(row.tokens)) for row in chunks],
            groups=self._groups,
            dtype=self._dtype,
        )
        # Without a draw nothing is asked of the output matrix but one row, which costs least.
        return self._forward(self._tensor(tokens), layout, self._tensor(wanted or [0]))

    def _forward(
        self, tokens: torch.Tensor, layout: StepLayout, wanted: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The model on token ids (N,): logits (N, vocabulary), or only those at the places `wanted`."""
        logits: torch.Tensor = self._model(
            input_ids=tokens[None],
            position_ids=layout.positions[None],
            use_cache=False,
            logits_to_keep=0 if wanted is None else wanted,
            step_layout=layout,
        ).logits[0]
        return logits

    def _tensor(self, values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)


def _head_dim(shape: Any) -> int:
    return int(getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads)
