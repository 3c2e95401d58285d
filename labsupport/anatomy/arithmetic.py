"""Parameters, bytes, FLOPs and memory of a model, each by one formula over its `ModelShape`.

Conventions: a multiply-add is two FLOPs; GB is 10⁹ bytes and GiB is 2³⁰, and functions return plain bytes;
"per token" means one token of one sequence. Sources: the parameter and FLOP counts follow Kaplan et al.
2020 (https://arxiv.org/abs/2001.08361, table 1) with the MLP's gate added; the KV-cache formula is that of
grouped-query attention (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245) and, for MLA, of DeepSeek-V2
(https://arxiv.org/abs/2405.04434, section 2.1).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from labsupport.anatomy.formats import format_named
from labsupport.anatomy.model_shape import ModelShape


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Weights per component over all layers; `head` is 0 when the embedding serves as output matrix too.

    `idle_experts` counts those of `mlp` that a token does not visit.
    """

    embedding: int
    attention_q: int
    attention_k: int
    attention_v: int
    attention_o: int
    mlp: int
    router: int
    norms: int
    head: int
    idle_experts: int = 0

    @property
    def total(self) -> int:
        """All weights of the model."""
        return sum(asdict(self).values()) - self.idle_experts

    @property
    def active(self) -> int:
        """Weights that take part in computing one token (all, unless there are experts)."""
        return self.total - self.idle_experts


def parameters(shape: ModelShape) -> Parameters:
    """How many weights each component of the model has."""
    s, layers = shape, shape.layers
    queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
    vectors = s.hidden * (s.norms_per_layer * layers + 1)  # one per norm, and the final one
    if s.kv_lora_rank:
        q, k, v, o, norms = _latent_attention(s)
    else:
        bias = s.qkv_bias
        q = queries * (s.hidden + bias)
        k = v = keys * (s.hidden + bias)
        o = s.hidden * (queries + s.output_bias)
        norms = 2 * s.head_dim if s.qk_norm else 0
    dense = 3 * s.hidden * s.ffn + s.mlp_bias * (2 * s.ffn + s.hidden)
    expert = 3 * s.hidden * s.expert_ffn
    expert_layers = layers - s.dense_layers if s.experts else 0
    # DeepSeek-V3's router also keeps one balancing number per expert.
    router = s.experts * (s.hidden + (s.architecture == "deepseek_v3"))
    return Parameters(
        embedding=s.vocabulary * s.hidden,
        attention_q=layers * q,
        attention_k=layers * k,
        attention_v=layers * v,
        attention_o=layers * o,
        mlp=(layers - expert_layers) * dense + expert_layers * (s.experts + s.shared_experts) * expert,
        router=expert_layers * router,
        norms=vectors + layers * norms,
        head=0 if s.tied_embeddings else s.vocabulary * s.hidden,
        idle_experts=expert_layers * (s.experts - s.experts_per_token) * expert,
    )


def _latent_attention(s: ModelShape) -> tuple[int, int, int, int, int]:
    """MLA: hidden → small latents → heads. The latent of keys and values is counted with the keys."""
    queries = s.heads * (s.head_dim + s.rope_head_dim)
    q = s.q_lora_rank * (s.hidden + queries) if s.q_lora_rank else s.hidden * queries
    k = s.hidden * (s.kv_lora_rank + s.rope_head_dim) + s.kv_lora_rank * s.heads * s.head_dim
    v = s.kv_lora_rank * s.heads * s.value_head_dim
    return q, k, v, s.heads * s.value_head_dim * s.hidden, s.q_lora_rank + s.kv_lora_rank


def weight_bytes(shape: ModelShape, form: str = "bf16", *, vectors: str | None = None) -> int:
    """Bytes of all weights with every matrix in format `form` (`bf16`, `q8_0`, `nf4`, …).

    Norm vectors are few and stay in the format `vectors` (by default `form` itself if it stores single
    numbers, else `f32`, as GGUF files do). Files named Q4_K_M or Q2_K mix formats: see `gguf_recipes`.
    """
    chosen, counts = format_named(form), parameters(shape)
    small = chosen if chosen.block_weights == 1 else format_named("f32")
    if vectors is not None:
        small = format_named(vectors)
    return chosen.bytes_for(counts.total - counts.norms) + small.bytes_for(counts.norms)


def kv_bytes_per_token(shape: ModelShape, form: str = "f16") -> int:
    """Bytes of KV cache that one token of context takes over all layers.

    2 (key and value) × layers × KV heads × head length × bytes per number; with MLA, layers × (latent +
    rotary key). The query heads do not count, nor does `hidden / heads` where a config gives `head_dim`.
    """
    numbers = shape.kv_heads * shape.head_dim
    rows = [shape.kv_lora_rank + shape.rope_head_dim] if shape.kv_lora_rank else [numbers, numbers]
    return shape.layers * sum(format_named(form).bytes_for(row) for row in rows)


def flops_per_token(shape: ModelShape, *, context_tokens: int = 0) -> int:
    """FLOPs to compute one token that attends to `context_tokens` tokens.

    2 per weight of every matrix it passes (the embedding is a look-up and costs none; the output matrix
    counts even when tied), plus 2 per number for scores and 2 for the weighted sum, per head and token
    attended to.
    """
    counts = parameters(shape)
    matrices = counts.active - counts.norms - counts.embedding
    if shape.tied_embeddings:
        matrices += counts.embedding
    score_dim = shape.head_dim + shape.rope_head_dim
    attended = shape.layers * shape.heads * (score_dim + (shape.value_head_dim or shape.head_dim))
    return 2 * matrices + 2 * attended * context_tokens


def decode_seconds_lower_bound(*, bytes_read: int, bandwidth_bytes_per_second: float) -> float:
    """The least time of a decode step: weights and KV cache must cross from memory to the cores once."""
    return bytes_read / bandwidth_bytes_per_second


def attainable_flops_per_second(
    *, flops_per_byte: float, peak_flops_per_second: float, bandwidth_bytes_per_second: float
) -> float:
    """The roofline (Williams et al. 2009, https://doi.org/10.1145/1498765.1498785)."""
    return min(peak_flops_per_second, flops_per_byte * bandwidth_bytes_per_second)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What serving a model takes of a memory, in bytes."""

    memory: int
    weights: int
    kv_cache: int
    overhead: int
    largest_context_tokens: int

    @property
    def needed(self) -> int:
        """Weights, KV cache and overhead together."""
        return self.weights + self.kv_cache + self.overhead

    @property
    def fits(self) -> bool:
        """Whether that is no more than the memory."""
        return self.needed <= self.memory


def fit(
    shape: ModelShape,
    form: str = "bf16",
    *,
    memory_bytes: int,
    context_tokens: int,
    sequences: int = 1,
    kv_form: str = "f16",
    overhead_bytes: int = 0,
    weight_bytes_measured: int | None = None,
) -> Fit:
    """Whether the model fits with `sequences` contexts of `context_tokens` tokens each, and what is left.

    `overhead_bytes` is for what the runtime itself takes (compute buffers, the CUDA context), which has no
    formula here. `weight_bytes_measured` replaces the estimate where a file's size is known.
    """
    weights = weight_bytes(shape, form) if weight_bytes_measured is None else weight_bytes_measured
    per_token = kv_bytes_per_token(shape, kv_form)
    room = memory_bytes - weights - overhead_bytes
    return Fit(
        memory=memory_bytes,
        weights=weights,
        kv_cache=per_token * context_tokens * sequences,
        overhead=overhead_bytes,
        largest_context_tokens=max(0, room // (per_token * sequences)),
    )
