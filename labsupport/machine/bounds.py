"""How fast a model could decode on this computer at the very most: arithmetic on a measured bandwidth.

To decode one token of one sequence, every weight but the embedding table (of which one row is looked up)
has to cross from memory to the processor once. So tokens per second cannot exceed bandwidth / bytes. Real
decoding is slower: there is a KV cache to read and there is arithmetic to do.
"""

from __future__ import annotations

from dataclasses import dataclass

from labsupport.anatomy import decode_seconds_lower_bound, fit, model_sheet, parameters
from labsupport.anatomy.formats import format_named
from labsupport.anatomy.gguf_recipes import gguf_weight_bytes

MODELS = ("llama-3.2-1b", "llama-3.1-8b", "llama-3.1-70b")
RECIPE = "q4_k_m"
CONTEXT_TOKENS = 4096


@dataclass(frozen=True)
class Bound:
    """What one published model would need here, and the most tokens per second that it could give."""

    model: str
    quantization: str
    weight_bytes: int
    read_bytes_per_token: int
    context_tokens: int
    needed_bytes: int
    fits: bool
    tokens_per_second: float


def bound(model: str, *, memory_bytes: int, bandwidth_bytes_per_second: float) -> Bound:
    """The bound for one sequence of a published `model` in `memory_bytes`, quantized to Q4_K_M."""
    shape = model_sheet(model).shape
    weights = gguf_weight_bytes(shape, RECIPE)
    table = 0 if shape.tied_embeddings else format_named("q4_k").bytes_for(parameters(shape).embedding)
    need = fit(shape, memory_bytes=memory_bytes, context_tokens=CONTEXT_TOKENS, weight_bytes_measured=weights)
    seconds = decode_seconds_lower_bound(
        bytes_read=weights - table, bandwidth_bytes_per_second=bandwidth_bytes_per_second
    )
    return Bound(
        model=model,
        quantization=RECIPE,
        weight_bytes=weights,
        read_bytes_per_token=weights - table,
        context_tokens=CONTEXT_TOKENS,
        needed_bytes=need.needed,
        fits=need.fits,
        tokens_per_second=1 / seconds,
    )
