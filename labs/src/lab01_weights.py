# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 01 · Weights: the file is the model
#
# In [lesson 01](../lessons/01_weights.ipynb) you saw that a model is a file of numbers. Here you write the tools to
# check that for yourself, for any model whose file or config you can get:
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | read a safetensors header | ●○○ | 15 | 5 |
# | 2 | count the parameters of any Llama-like model | ●●○ | 25 | 6 |
# | 3 | bytes of a quantized matrix, overhead included | ●●○ | 20 | 5 |
# | 4 | review a release: how open is it, does the file keep its promise? | ●●● | 25 | 5 |
#
# **How it works.** Write your code in the place of `raise NotImplementedError()`, run the cell, and run the `check`
# below it. The check answers at once and says what is wrong. Run it as often as you like: only your last version
# counts. Part of an exercise earns part of its points.
#
# When you hand this notebook in, the same questions are asked again about other files and other numbers. So a
# function that works will do well, and a list of remembered answers will not.

# %%
import json
from pathlib import Path

import labsupport
from labsupport.grading import check

# %% [markdown]
# ## 1 · Read a safetensors header
#
# A safetensors file has three parts, one after the other:
#
# | part | bytes | content |
# |---|---|---|
# | length | the first 8 | N, an unsigned number, little-endian (the first byte counts least) |
# | header | the next N | JSON: name → `dtype`, `shape` and `data_offsets`; perhaps padded with spaces |
# | data | the rest | the numbers of all tensors, one tensor after the other |
#
# `data_offsets` is `[begin, end]`: where the tensor's bytes begin, and the first byte after them, **counted from the
# first byte of the data part**. Beside the tensors there may be a `__metadata__`, with notes about the file.
#
# **Write** `read_header(path)`. It gets the path of a file (`str`) and returns a `dict`: for each tensor's name, a
# `dict` with
#
# - `"dtype"` (`str`) and `"shape"` (`list` of `int`), as they stand in the header,
# - `"start"` (`int`): the place of the tensor's first byte, **counted from the start of the file**,
# - `"bytes"` (`int`): how many bytes it takes.
#
# Example: a header of 64 bytes (padding included) in which `{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}`
# stands gives `{"w": {"dtype": "F32", "shape": [2, 3], "start": 72, "bytes": 24}}`.
#
# Use `open` and `json`, not the safetensors library. Read the header only: the data of a large model does not fit
# into memory, and you do not need it.


# %% nbgrader={"grade": false, "grade_id": "read_header", "locked": false, "schema_version": 3, "solution": true, "task": false}
def read_header(path):
    """Tensor name → {"dtype": str, "shape": list[int], "start": int, "bytes": int}."""
    ### BEGIN SOLUTION
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        tensors[name] = {
            "dtype": entry["dtype"],
            "shape": entry["shape"],
            "start": 8 + length + begin,
            "bytes": end - begin,
        }
    return tensors
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_read_header", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
check("read_header")

# %% [markdown]
# ## 2 · Count the parameters of any Llama-like model
#
# You rarely need the file to know a model's size: its `config.json` is enough. Llama, Mistral, Qwen and many others
# are built from the same tensors:
#
# | tensor | shape | how often |
# |---|---|---|
# | embedding | `vocab_size × hidden_size` | once |
# | `q_proj` | `(num_attention_heads × head_dim) × hidden_size` | per layer |
# | `k_proj`, `v_proj` | `(num_key_value_heads × head_dim) × hidden_size` | per layer |
# | `o_proj` | `hidden_size × (num_attention_heads × head_dim)` | per layer |
# | `gate_proj`, `up_proj` | `intermediate_size × hidden_size` | per layer |
# | `down_proj` | `hidden_size × intermediate_size` | per layer |
# | norm before attention, norm before the feed-forward network | `hidden_size` each | per layer |
# | norm after the last layer | `hidden_size` | once |
# | output matrix `lm_head` | `vocab_size × hidden_size` | once, unless it is tied to the embedding |
#
# The first number of a matrix's shape is the number of its outputs. Some keys may be missing from a config; then:
#
# | key | means | if it is missing |
# |---|---|---|
# | `num_key_value_heads` | heads of keys and values; fewer than query heads in grouped-query attention | as many as `num_attention_heads` |
# | `head_dim` | size of one head | `hidden_size // num_attention_heads` |
# | `tie_word_embeddings` | the output matrix *is* the embedding | `False` |
# | `attention_bias` | `q_proj`, `k_proj`, `v_proj`, `o_proj` each have a bias, one number per output | `False` |
# | `mlp_bias` | `gate_proj`, `up_proj`, `down_proj` each have a bias, one number per output | `False` |
#
# **Write** `count_parameters(config)`. It gets a config (`dict`) and returns the number of parameters (`int`).
#
# Example: `{"vocab_size": 10, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1,
# "num_attention_heads": 2}` has 40 (embedding) + 64 (attention) + 72 (feed-forward) + 8 + 4 (norms) + 40 (output) =
# 228.


# %% nbgrader={"grade": false, "grade_id": "count_parameters", "locked": false, "schema_version": 3, "solution": true, "task": false}
def count_parameters(config):
    """The number of parameters (int) of the model that `config` (dict) describes."""
    ### BEGIN SOLUTION
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    ffn = config["intermediate_size"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim", hidden // heads)
    queries, keys = heads * head_dim, kv_heads * head_dim

    layer = 2 * hidden * queries + 2 * hidden * keys + 3 * hidden * ffn + 2 * hidden
    if config.get("attention_bias", False):
        layer += queries + 2 * keys + hidden
    if config.get("mlp_bias", False):
        layer += 2 * ffn + hidden

    vocabulary = config["vocab_size"] * hidden
    matrices = 1 if config.get("tie_word_embeddings", False) else 2
    return matrices * vocabulary + config["num_hidden_layers"] * layer + hidden
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_count_parameters", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
check("count_parameters")

# %% [markdown]
# ## 3 · Bytes of a quantized matrix, overhead included
#
# "4 bits per weight" is never the whole story. To turn 4-bit numbers back into weights, the file also stores a
# *scale* for each small group of them, and sometimes an *offset*. These are the rules of the format here:
#
# - A matrix has a shape of two numbers, rows and columns. **Each row is cut into groups** of `group` weights. If the
#   columns do not come out even, the last group of each row is smaller, and is not filled up.
# - Each weight takes `bits` bits. Each group takes `scale_bits` more for its scale and `offset_bits` more for its
#   offset (0 if there is none). All of these are bits, packed without gaps.
# - The tensor as a whole takes whole bytes: round up.
# - A tensor of one dimension (a norm) is not quantized. It keeps 16 bits per weight, and has no scales.
#
# **Write** `quantized_bytes(shape, bits, group, scale_bits, offset_bits)`. `shape` is a `list` of one or two `int`;
# the others are `int`. It returns the bytes of the tensor (`int`).
#
# Examples: `quantized_bytes([2, 64], 4, 32, 16, 0)` is 72: 128 weights of 4 bits and 4 scales of 16 bits are 576 bits.
# That is 4.5 bits per weight. `quantized_bytes([64], 4, 32, 16, 0)` is 128.


# %% nbgrader={"grade": false, "grade_id": "quantized_bytes", "locked": false, "schema_version": 3, "solution": true, "task": false}
def quantized_bytes(shape, bits, group, scale_bits, offset_bits):
    """The bytes (int) of a tensor with this shape, quantized in groups along its rows."""
    ### BEGIN SOLUTION
    if len(shape) == 1:
        return shape[0] * 16 // 8
    rows, columns = shape
    groups = rows * -(-columns // group)
    total_bits = rows * columns * bits + groups * (scale_bits + offset_bits)
    return -(-total_bits // 8)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_quantized_bytes", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
check("quantized_bytes")

# %% [markdown]
# ## 4 · Review a release: how open is it, and does the file keep its promise?
#
# Now put it together, the way you would before you build on somebody's model. A release comes as a folder (or not at
# all) and some facts about it:
#
# | fact | values |
# |---|---|
# | `"weights"` | the licence of the weights (`str`), or `None` if nobody outside can have them |
# | `"training_code"` | the licence of the training code (`str`), or `None` if it was not published |
# | `"training_data"` | `"released"`, `"described"` (in enough detail to build an equivalent), or `"undisclosed"` |
#
# The course follows the Open Source AI Definition: of the training data it asks for information that lets a skilled
# person build a [substantially equivalent system](../lessons/CLAIMS.md#osaid-data-information), not for the data
# itself. So a release has
#
# - `"closed weights"` if nobody outside can have the weights, whatever else was published;
# - `"open source"` if weights **and** training code have a licence from `OPEN_LICENCES` **and** the training data is
#   described or released;
# - `"open weights"` in all other cases: you can have the file, but something is missing, be it only that the licence
#   shuts somebody out.
#
# **Write** `review_release(directory, facts)`. It gets the path of a folder (`str`) with `model.safetensors` and
# `config.json`, or `None` if there is none, and the facts (`dict`). It returns a `dict` with
#
# - `"openness"` (`str`): one of the three above,
# - `"parameters"` (`int`): how many numbers the *file* holds (the product of each tensor's shape, all added up),
# - `"as_configured"` (`bool`): whether that is what the config promises.
#
# The last two are `None` if there is no folder. Use `read_header` and `count_parameters`. The last part of the check
# is about the course's own model, the real file on your disk.

# %%
OPEN_LICENCES = {"apache-2.0", "bsd-3-clause", "mit"}


# %% nbgrader={"grade": false, "grade_id": "review_release", "locked": false, "schema_version": 3, "solution": true, "task": false}
def review_release(directory, facts):
    """{"openness": str, "parameters": int or None, "as_configured": bool or None}"""
    ### BEGIN SOLUTION
    licences_are_open = facts["weights"] in OPEN_LICENCES and facts["training_code"] in OPEN_LICENCES
    if facts["weights"] is None:
        openness = "closed weights"
    elif licences_are_open and facts["training_data"] != "undisclosed":
        openness = "open source"
    else:
        openness = "open weights"
    if directory is None:
        return {"openness": openness, "parameters": None, "as_configured": None}

    parameters = 0
    for tensor in read_header(Path(directory) / "model.safetensors").values():
        size = 1
        for length in tensor["shape"]:
            size *= length
        parameters += size
    config = json.loads((Path(directory) / "config.json").read_text())
    return {
        "openness": openness,
        "parameters": parameters,
        "as_configured": parameters == count_parameters(config),
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_review_release", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
check("review_release")

# %% [markdown]
# ## Use it
#
# These are releases that you can look up. What was read about each, where and when, stands in the
# [claim ledger](../lessons/CLAIMS.md):
#
# - **OLMo 2 7B**: weights under [apache-2.0](../lessons/CLAIMS.md#olmo2-weights-licence); its [training
#   code](../lessons/CLAIMS.md#olmo2-training-code) and its [training data](../lessons/CLAIMS.md#olmo2-training-data)
#   are public.
# - **Mistral 7B**: weights under the [Apache 2](../lessons/CLAIMS.md#mistral7b-weights-licence) licence; of the
#   training data the company said that it is [unable to share
#   details](../lessons/CLAIMS.md#mistral-training-data).
# - **Llama 3.1 8B**: weights under a licence of Meta's own, which shuts out whoever has more than
#   [700 million](../lessons/CLAIMS.md#llama31-licence-users) monthly users.
# - **GPT-4**: no weights to download; of the training, the report gives [no further
#   details](../lessons/CLAIMS.md#gpt4-report).
# - **pocket**, the course's own model: everything is in this repository.
#
# A fact that nobody could look up is entered as not published; no result below hangs on one.
#
# Before you run the cell: which of the five do you expect to be open source?

# %%
POCKET = Path(labsupport.__file__).parent / "pocket" / "weights"
RELEASES = {
    "pocket": (POCKET, {"weights": "apache-2.0", "training_code": "apache-2.0", "training_data": "released"}),
    "OLMo 2 7B": (
        None,
        {"weights": "apache-2.0", "training_code": "apache-2.0", "training_data": "released"},
    ),
    "Mistral 7B": (None, {"weights": "apache-2.0", "training_code": None, "training_data": "undisclosed"}),
    "Llama 3.1 8B": (None, {"weights": "llama3.1", "training_code": None, "training_data": "undisclosed"}),
    "GPT-4": (None, {"weights": None, "training_code": None, "training_data": "undisclosed"}),
}
for name, (directory, facts) in RELEASES.items():
    print(f"{name:14} {review_release(directory, facts)['openness']}")

# %% [markdown]
# And one more question to the real file. How large would the pocket model be with every matrix in 4 bits, one 16-bit
# scale per 32 weights, and no offsets? Compare it with what the file takes today.

# %%
header = read_header(POCKET / "model.safetensors")
stored = sum(tensor["bytes"] for tensor in header.values())
packed = sum(quantized_bytes(tensor["shape"], 4, 32, 16, 0) for tensor in header.values())
print(
    f"stored {stored / 1e6:.2f} MB, with 4-bit matrices {packed / 1e6:.2f} MB: {stored / packed:.2f} times smaller"
)
