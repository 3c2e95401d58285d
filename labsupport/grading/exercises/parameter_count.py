"""Lab 01, exercise 2: the number of parameters of any Llama-like model, from its `config.json`.

Right is what transformers' `LlamaForCausalLM` allocates for that configuration (the tests compare the two):
embedding, per layer four attention projections, three of the gated feed-forward network and two norms, a last
norm, and an output matrix unless it is tied to the embedding.
"""

from __future__ import annotations

import random
from typing import Any

from labsupport.grading.exercise import Case, Exercise, Mistake, Part, Stumble, switches

PLAIN, GROUPED, HEADS, TIED, BIASED = (
    "every head has its own keys and values",
    "grouped-query attention",
    "a head size of its own",
    "tied embeddings",
    "biases",
)


def solve(
    config: dict[str, Any],
    *,
    grouped: bool = True,
    own_head_dim: bool = True,
    honour_tie: bool = True,
    tied_by_default: bool = False,
    head_dim_by: str = "num_attention_heads",
    output_head: bool = True,
    embedding: bool = True,
    layer_norms: int = 2,
    final_norm: bool = True,
    ffn_matrices: int = 3,
    output_projection: bool = True,
    all_layers: bool = True,
    attention_bias: bool = True,
    mlp_bias: bool = True,
) -> int:
    """Parameters of the model that `config` describes; each switch leaves out or changes one thing."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    ffn, layers = config["intermediate_size"], config["num_hidden_layers"] if all_layers else 1
    kv_heads = config.get("num_key_value_heads", heads) if grouped else heads
    usual = hidden // config.get(head_dim_by, heads)
    head_dim = config.get("head_dim", usual) if own_head_dim else usual

    matrices = [(hidden, heads * head_dim), (hidden, kv_heads * head_dim), (hidden, kv_heads * head_dim)]
    if output_projection:
        matrices.append((heads * head_dim, hidden))
    attention = sum(rows * columns for rows, columns in matrices)
    if attention_bias and config.get("attention_bias", False):
        attention += sum(columns for _, columns in matrices)

    feed_forward = ffn_matrices * hidden * ffn
    if mlp_bias and config.get("mlp_bias", False):
        feed_forward += 2 * ffn + hidden

    vocabulary = config["vocab_size"] * hidden
    tied = config.get("tie_word_embeddings", tied_by_default) and honour_tie
    copies = int(embedding) + int(output_head and not tied)
    return (
        copies * vocabulary
        + layers * (attention + feed_forward + layer_norms * hidden)
        + (hidden if final_norm else 0)
    )


def draw(chance: random.Random) -> list[Case]:
    """Two configurations for each part; a part's configurations differ from plain ones in that part alone."""

    def config(**changed: Any) -> dict[str, Any]:
        heads = chance.choice([4, 8, 16])
        head_dim = chance.choice([16, 32, 64])
        drawn = {
            "vocab_size": chance.randrange(600, 40_000),
            "hidden_size": heads * head_dim,
            "intermediate_size": 16 * chance.randrange(9, 120),
            "num_hidden_layers": chance.randrange(2, 13),
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "tie_word_embeddings": False,
        }
        drawn.update(changed)
        return drawn

    def grouped() -> dict[str, Any]:
        drawn = config()
        return drawn | {"num_key_value_heads": drawn["num_attention_heads"] // chance.choice([2, 4])}

    def own_head_dim() -> dict[str, Any]:
        drawn = config()
        usual = drawn["hidden_size"] // drawn["num_attention_heads"]
        return drawn | {"head_dim": usual * chance.choice([2, 4])}

    older = config()
    del older["num_key_value_heads"], older["tie_word_embeddings"]
    return [
        Case((config(),), (PLAIN,)),
        Case((older,), (PLAIN,)),
        Case((grouped(),), (GROUPED,)),
        Case((grouped(),), (GROUPED,)),
        Case((own_head_dim(),), (HEADS,)),
        Case((own_head_dim(),), (HEADS,)),
        Case((config(tie_word_embeddings=True),), (TIED,)),
        Case((config(tie_word_embeddings=True),), (TIED,)),
        Case((config(attention_bias=True, mlp_bias=False),), (BIASED,)),
        Case((config(attention_bias=False, mlp_bias=True),), (BIASED,)),
    ]


MISTAKES = (
    Mistake(
        "query heads for keys and values",
        "Right wherever every head has its own keys and values, too large elsewhere: did you count query "
        "heads where there are key/value heads? With grouped-query attention `k_proj` and `v_proj` make "
        "`num_key_value_heads × head_dim` outputs, not `hidden_size`.",
        switches(grouped=False),
    ),
    Mistake(
        "head size from hidden size",
        "You took the head size to be `hidden_size / num_attention_heads`. That is only the default: a "
        "config may name a `head_dim` of its own, and then `q_proj` is no longer square.",
        switches(own_head_dim=False),
    ),
    Mistake(
        "head size from key/value heads",
        "Right wherever every head has its own keys and values. You divided `hidden_size` by the key/value "
        "heads: a missing `head_dim` is `hidden_size // num_attention_heads`, for queries, keys and values "
        "alike.",
        switches(head_dim_by="num_key_value_heads"),
    ),
    Mistake(
        "tied unless told",
        "Too small where the config says nothing of `tie_word_embeddings`. Its absence means that they are "
        "not tied, so the output matrix counts.",
        switches(tied_by_default=True),
    ),
    Mistake(
        "tied output counted",
        "Too large by one `vocab_size × hidden_size` where `tie_word_embeddings` is true: then the output "
        "matrix *is* the embedding, stored once and counted once.",
        switches(honour_tie=False),
    ),
    Mistake(
        "output matrix forgotten",
        "Too small by one `vocab_size × hidden_size` where the embeddings are not tied: then the output "
        "matrix `lm_head`, which turns the last hidden state into one score per token, is a tensor of its "
        "own.",
        switches(output_head=False),
    ),
    Mistake(
        "embedding forgotten",
        "Too small by one `vocab_size × hidden_size`: the embedding, one row of `hidden_size` numbers per "
        "token of the vocabulary, is missing.",
        switches(embedding=False),
    ),
    Mistake(
        "layer norms forgotten",
        "Too small by `2 × hidden_size` per layer: each layer has two norms, one before attention and one "
        "before the feed-forward network, and each has `hidden_size` weights.",
        switches(layer_norms=0),
    ),
    Mistake(
        "one norm per layer",
        "Too small by `hidden_size` per layer: there are two norms in each, one before attention and one "
        "before the feed-forward network.",
        switches(layer_norms=1),
    ),
    Mistake(
        "last norm forgotten",
        "Too small by exactly `hidden_size`: after the last layer comes one more norm.",
        switches(final_norm=False),
    ),
    Mistake(
        "all norms forgotten",
        "The matrices are right; the norms are missing. Two per layer and one after the last layer, each "
        "with `hidden_size` weights.",
        switches(layer_norms=0, final_norm=False),
    ),
    Mistake(
        "two feed-forward matrices",
        "Too small by `hidden_size × intermediate_size` per layer: a gated feed-forward network (SwiGLU) "
        "has three matrices, `gate_proj`, `up_proj` and `down_proj`, not two.",
        switches(ffn_matrices=2),
    ),
    Mistake(
        "output projection forgotten",
        "One attention matrix per layer is missing: after `q_proj`, `k_proj` and `v_proj`, `o_proj` brings "
        "the heads back to `hidden_size`.",
        switches(output_projection=False),
    ),
    Mistake(
        "one layer only",
        "That is a model of one layer: multiply what a layer holds by `num_hidden_layers`.",
        switches(all_layers=False),
    ),
    Mistake(
        "biases forgotten",
        "Right where there are no biases. Where `attention_bias` or `mlp_bias` is true, each of those "
        "matrices has a bias as well: one number per output.",
        switches(attention_bias=False, mlp_bias=False),
    ),
    Mistake(
        "attention biases forgotten",
        "Where `attention_bias` is true, `q_proj`, `k_proj`, `v_proj` and `o_proj` each have a bias: one "
        "number per output.",
        switches(attention_bias=False),
    ),
    Mistake(
        "feed-forward biases forgotten",
        "Where `mlp_bias` is true, `gate_proj`, `up_proj` and `down_proj` each have a bias: one number per "
        "output, so `intermediate_size` twice and `hidden_size` once.",
        switches(mlp_bias=False),
    ),
)

STUMBLES = (
    Stumble(
        "older config",
        "Older configs have no such key: then every query head has its own keys and values. "
        "`config.get(key, default)` gives a default.",
        ("KeyError",),
        "num_key_value_heads",
    ),
    Stumble(
        "optional key",
        "Not every config has that key; the table above says what its absence means. "
        "`config.get(key, default)` gives a default.",
        ("KeyError",),
    ),
)

EXERCISE = Exercise(
    name="count_parameters",
    title="Count the parameters of any Llama-like model",
    parts=(Part(PLAIN, 2), Part(GROUPED, 1), Part(HEADS, 1), Part(TIED, 1), Part(BIASED, 1)),
    draw=draw,
    solve=solve,
    mistakes=MISTAKES,
    stumbles=STUMBLES,
)
