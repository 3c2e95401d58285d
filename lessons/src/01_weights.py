# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · Weights: the file is the model
#
# **The question.** Somebody tells you "we run Llama". What exactly do they have on their disk? And when a
# vendor says "our model is open", what exactly did they give away?
#
# **When you have finished you can**
#
# - open a weights file with nothing but the standard library, and read one number out of it by hand;
# - say from a short configuration how many parameters a model has, where they sit, and how many bytes they take;
# - predict what happens when a single bit of that file is wrong, and name the check that notices;
# - tell closed weights, open weights and open source apart, and say why most weights stay closed.
#
# **Time:** 45 minutes. **Before you start:** lesson 00. You need no machine learning. You need to know what a
# byte is, and to have met a floating-point number that was not what you expected.

# %% [markdown]
# ## A model on disk
#
# In lesson 00 you ran a model. Here is what it runs on. (This lesson always opens *pocket*, the course's own model, whatever
# you chose there: it is small enough to take apart, and nothing about it is secret.)

# %%
from pathlib import Path

from labsupport import models

folder = Path(models.checkpoint("pocket"))
FILES = ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"]
FILES += ["generation_config.json"]
for name in FILES:
    print(f"{(folder / name).stat().st_size:>12,} bytes  {name}")

# %% [markdown]
# One file is far larger than the rest. The small ones are text, and each answers one question:
#
# | file | what it says |
# |---|---|
# | `model.safetensors` | the **weights**: every number that training found |
# | `config.json` | the **architecture**: how those numbers are wired together |
# | `tokenizer.json` | how text becomes integers, and back |
# | `chat_template.jinja` | how a list of messages becomes one text |
# | `generation_config.json` | where an answer stops, and other defaults |
#
# There is no program here. No loop, no rule, no database of facts. The program that multiplies these numbers
# is the same for every model of a family, it is public, and it fits on a few pages. What differs between a
# model that knows your domain and one that talks nonsense is the large file. That is why the field says
# *weights* when it means *the model*.
#
# The configuration is worth reading once in full. Keep it in mind for the first prediction.

# %%
import json

config = json.loads((folder / "config.json").read_text())
SHAPE = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
]
SHAPE += ["intermediate_size", "vocab_size", "tie_word_embeddings"]
for key in SHAPE:
    print(f"{key:22} {config[key]}")

# %% [markdown]
# Read it like a building plan. A token becomes a vector of `hidden_size` numbers. The vector goes through
# `num_hidden_layers` layers. Each layer has two parts: **attention**, in which a token looks at earlier tokens,
# and an **MLP** (multi-layer perceptron), in which it is worked on alone, through a wider vector of
# `intermediate_size` numbers. In the end the vector is compared with all `vocab_size` tokens, to choose the next.
#
# Every arrow in that description is a matrix, and a matrix is rows × columns of numbers.

# %%
from labsupport.notebook import predict, score

predict(
    "01-parameters",
    "How many parameters (numbers) does this model have? Estimate from the plan above.",
    unit="million parameters",
)

# %% [markdown]
# ## Open it by hand
#
# The weights are stored in the *safetensors* format. It is refreshingly plain. The first
# [8 bytes](CLAIMS.md#safetensors-length-bytes) are an integer: the length of the header. The header is JSON: the
# name, type, shape and position of each tensor. (A *tensor* is an array: a matrix, or a plain list of numbers.)
# The rest of the file is numbers, one after the other. `struct` and `json` are all you need.

# %%
import struct

weights = folder / "model.safetensors"
with weights.open("rb") as file:
    (header_length,) = struct.unpack(
        "<Q", file.read(8)
    )  # little-endian, unsigned, 8 bytes
    header = json.loads(file.read(header_length))
data_start = 8 + header_length
metadata = header.pop("__metadata__", {})

print(
    f"{header_length:,} bytes of header describe {len(header)} tensors. The first four:"
)
for name, entry in list(header.items())[:4]:
    print(
        f"  {name:45} {entry['dtype']} {entry['shape']!s:12} bytes {entry['data_offsets']}"
    )

# %% [markdown]
# Now read one number. `BF16` is *bfloat16*: a number in [16 bits](CLAIMS.md#bf16-bits), that is,
# [two bytes](CLAIMS.md#bf16-bytes). It is an ordinary float32 with its lower half cut off, so you decode it by putting
# two zero bytes back.


# %%
def raw_bytes(name: str, index: int) -> bytes:
    """The two bytes of one number: tensor by name, position counted row by row."""
    with weights.open("rb") as file:
        file.seek(data_start + header[name]["data_offsets"][0] + 2 * index)
        return file.read(2)


def bfloat16(two_bytes: bytes) -> float:
    """bfloat16 is the upper half of a float32: put the lower half back as zeros."""
    return struct.unpack("<f", b"\x00\x00" + two_bytes)[0]


NAME, INDEX = "model.layers.0.mlp.down_proj.weight", 0
two_bytes = raw_bytes(NAME, INDEX)
print(f"{NAME}[0, 0]")
print(f"  bytes in the file   {two_bytes.hex(' ')}")
print(f"  as bits             {int.from_bytes(two_bytes, 'little'):016b}")
print(f"  as a number         {bfloat16(two_bytes)!r}")

# %% [markdown]
# Is that really what the model computes with? Ask the library that everybody uses.

# %%
from safetensors import safe_open

with safe_open(weights, framework="pt") as file:
    by_library = file.get_tensor(NAME)[0, 0].item()
assert by_library == bfloat16(two_bytes)
print(
    "the safetensors library reads the same number:", by_library == bfloat16(two_bytes)
)

# %% [markdown]
# ## Where the numbers sit
#
# Each tensor's name tells which part of the building plan it belongs to. Add up rows × columns per part.

# %%
from collections import Counter
from math import prod


def component(name: str) -> str:
    """The part of the plan that a tensor belongs to, by its name."""
    if "embed" in name or "lm_head" in name:
        return "embedding"
    return "attention" if "self_attn" in name else "MLP" if "mlp" in name else "norms"


counted = Counter()
for name, entry in header.items():
    counted[component(name)] += prod(entry["shape"])
total = sum(counted.values())
for part, number in counted.most_common():
    print(f"{part:10} {number:>12,}  {number / total:6.1%}")
print(f"{'together':10} {total:>12,}")

# %% [markdown]
# The same numbers follow from the configuration alone, without opening the file. Do it once by hand; lab 01 asks
# you to do it for any model of this family.

# %%
hidden = config["hidden_size"]
layers = config["num_hidden_layers"]
ffn = config["intermediate_size"]
query_width = config["num_attention_heads"] * config["head_dim"]
kv_width = config["num_key_value_heads"] * config["head_dim"]

attention = 2 * hidden * query_width + 2 * hidden * kv_width  # Q and output, K and V
mlp = 3 * hidden * ffn  # gate, up, down
norms = 2 * hidden  # one before attention, one before the MLP
embedding = config["vocab_size"] * hidden  # tied: the same matrix serves as output
by_hand = embedding + layers * (attention + mlp + norms) + hidden  # one last norm

print(f"counted in the file: {total:,}; from the configuration: {by_hand:,}")
assert by_hand == total

# %%
score("01-parameters", total / 1e6, unit="million parameters")

# %% [markdown]
# And the bytes? Two for each parameter, plus the header. Compare with the size of the file.

# %%
file_bytes = weights.stat().st_size
print(
    f"2 bytes x {total:,} parameters + {data_start:,} bytes of header = {2 * total + data_start:,}"
)
print(
    f"the file has {file_bytes:,} bytes, and {data_start / file_bytes:.2%} of them are header"
)
assert 2 * total + data_start == file_bytes

# %% [markdown]
# Not a byte is left over. There is nothing else in it.
#
# Here is the whole file, drawn to scale from left to right, as it lies on disk. The header that you have just parsed
# is the hair-thin line at the left edge.

# %% tags=["hide-input"]
from labsupport.notebook import COLOURS, figure

PARTS = {"embedding": "blue", "attention": "orange", "MLP": "green", "norms": "black"}
pieces = [("header", 0, data_start)]
for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
    start, end = (data_start + offset for offset in entry["data_offsets"])
    pieces.append((component(name), start, end))
by_part = {
    part: sum(end - start for kind, start, end in pieces if kind == part)
    for part in ["header", *PARTS]
}

with figure(
    alt="One long bar, the weights file from its first byte to its last. A thin header is followed by a block of "
    "embedding, and then by the layers, each an MLP block and a narrower attention block in turn.",
    table={"part": [*by_part], "bytes": [*by_part.values()]},
    inches_tall=1.9,
) as axes:
    for part, start, end in pieces:
        axes.barh(
            0,
            (end - start) / 1e6,
            left=start / 1e6,
            color=COLOURS[PARTS.get(part, "vermilion")],
            lw=0,
        )
    for part, colour in PARTS.items():
        axes.bar(0, 0, color=COLOURS[colour], label=part)
    axes.set(
        xlabel="position in the file (MB)",
        yticks=[],
        xlim=(0, file_bytes / 1e6),
        ylim=(-0.4, 0.4),
    )
    axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.grid(visible=False)

# %% [markdown]
# Two things hold for nearly every model that you will meet. The **MLP is the bulk**, so when people quantize or
# shard a model, it is mostly the MLP that they quantize or shard. And the **norms are nothing**: a few thousand
# numbers. Remember them all the same. They come back below.
#
# How do the shares change with size? The published shapes of four larger models are enough to know. Before you run the
# cell: a vocabulary hardly grows when a model does. Which share must shrink?

# %%
from labsupport import anatomy

shapes = {"pocket": anatomy.shape_of(folder / "config.json")}
for name in ("qwen3-0.6b", "llama-3.2-1b", "llama-3.1-8b", "llama-3.1-70b"):
    shapes[name] = anatomy.model_sheet(name).shape

shares = {}
for name, shape in shapes.items():
    p = anatomy.parameters(shape)
    parts = {"embedding": p.embedding + p.head, "MLP": p.mlp + p.router}
    parts["attention"] = p.attention_q + p.attention_k + p.attention_v + p.attention_o
    shares[name] = {part: number / p.total for part, number in parts.items()} | {
        "billion": p.total / 1e9
    }
    print(f"{name:14} {p.total:>16,} parameters, MLP {shares[name]['MLP']:.0%}")

# %% tags=["hide-input"]
with figure(
    alt="Stacked bars for five models from small to large. From the second to the last, the share of the embedding "
    "shrinks until it nearly vanishes and the share of the MLP grows. Pocket, the first, has hardly any embedding.",
    table={
        "model": [*shares],
        **{
            f"{part} (share)": [s[part] for s in shares.values()]
            for part in PARTS
            if part != "norms"
        },
    },
    inches_tall=3.0,
) as axes:
    left = [0.0] * len(shares)
    for part, hatch in (("embedding", ""), ("attention", "//"), ("MLP", "")):
        widths = [share[part] for share in shares.values()]
        axes.barh(
            [*shares],
            widths,
            left=left,
            color=COLOURS[PARTS[part]],
            hatch=hatch,
            edgecolor="white",
            label=part,
        )
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set(xlim=(0, 1), xlabel="share of all parameters")
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))

# %% [markdown]
# The embedding shrinks, and the MLP takes over. *Pocket* breaks the pattern only because its vocabulary is tiny.
#
# > **Takeaway.** A short configuration fixes the size of every tensor in the weights file. Anybody who tells you a
# > model's shape has told you its size, and anybody who hides the size must hide the shape.
#
# ## From parameters to bytes
#
# Parameters × bits ÷ 8 = bytes. That is all, and it is the most useful line of this course. The table prices three
# models in four formats. (A *block format* such as `q4_k` also stores scales for groups of weights, so it costs
# more than its name says: [4.5 bits](CLAIMS.md#q4k-bits) per weight. Lesson 04 takes it apart.)

# %%
FORMATS = ("f32", "bf16", "q8_0", "q4_k")
print(f"{'GB':14}" + "".join(f"{form:>10}" for form in FORMATS))
for name in ("pocket", "llama-3.1-8b", "llama-3.1-70b"):
    sizes = [anatomy.weight_bytes(shapes[name], form) / 1e9 for form in FORMATS]
    print(f"{name:14}" + "".join(f"{size:10.3f}" for size in sizes))

# %% [markdown]
# Llama 3.1 8B has [8.03 billion](CLAIMS.md#llama31-8b-parameters) parameters, so in bfloat16 it weighs
# [16.06 GB](CLAIMS.md#llama31-8b-bf16). (Both are computed from its shape. Meta's own configuration could not be opened;
# the shape is from Meta's list of models and from a copy, and the sources below say where it lies.) That does not fit
# beside your browser on an ordinary laptop. It fits easily on one server GPU. Its larger sister, at
# [141 GB](CLAIMS.md#llama31-70b-bf16), does not fit on an H100 with its [80 GB](CLAIMS.md#h100-memory): that one
# arithmetic fact is where lessons 04 (fewer bits) and 07 (more GPUs) come from.
#
# Which memory do *you* need? Move the controls. One of the marks is the machine on which this page runs.

# %%
import psutil

from labsupport.notebook import explore_model_bytes

memories = {"memory of this machine": psutil.virtual_memory().total}
for name in ("rtx-4090", "h100-sxm"):
    sheet = anatomy.hardware(name)
    memories[sheet.name] = sheet.memory_bytes
explore_model_bytes(memories, start_billions=8)

# %% [markdown]
# Weights are not all that a running model needs. The KV cache (lesson 05) and buffers come on top, which is what
# the overhead control stands for. But weights are the part that you pay for before the first request arrives.
#
# ## What do the numbers look like?
#
# This file holds everything the model knows: how to summarize an incident, what a KV cache is, how to divide by
# eight. Surely that shows.

# %%
import numpy as np

data = np.fromfile(weights, dtype=np.uint16, offset=data_start)
numbers = (data.astype(np.uint32) << 16).view(
    np.float32
)  # the trick from above, for all of them at once
edges = np.linspace(-0.5, 0.5, 101)
heights, _ = np.histogram(numbers, bins=edges)
inside = np.abs(numbers) < 0.5
print(
    f"{inside.mean():.1%} of all weights lie between -0.5 and 0.5; the mean is {numbers.mean():+.4f}"
)
assert inside.mean() > 0.9

# %% tags=["hide-input"]
middles = (edges[1:] + edges[:-1]) / 2
untrained = np.random.default_rng(0).normal(
    0, config["initializer_range"], len(numbers)
)  # what training started from
before, _ = np.histogram(untrained, bins=edges)
with figure(
    alt="A histogram of all weights between minus one half and one half, on a logarithmic scale: one symmetric hill "
    "around zero that falls off smoothly on both sides. Random numbers before training make nearly the same hill, with shorter tails.",
    table={
        "around": [round(float(middle), 3) for middle in middles[2::10]],
        "trained weights": [int(height) for height in heights[2::10]],
        "before training": [int(height) for height in before[2::10]],
    },
    inches_tall=2.8,
) as axes:
    axes.bar(
        middles, heights, width=0.01, color=COLOURS["blue"], label="trained weights"
    )
    axes.step(
        middles,
        before,
        where="mid",
        color=COLOURS["black"],
        label="random numbers, before training",
    )
    axes.set_yscale("log")
    axes.set(xlabel="value of a weight", ylabel="how many (log)", ylim=(0.8, None))
    axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))

# %% [markdown]
# It does not show. One smooth hill around zero, like the random numbers that training started from, only sharper at the top
# and with longer tails. Train the model on other texts and you get the same picture with other numbers under it.
# Knowledge is not *in* a weight, as a row is in a table. It is in how millions of them work together. That has consequences for you as an engineer:
#
# - you cannot `grep` a model for a customer's name, and you cannot `DELETE` it either;
# - you cannot review a weights file as you review a pull request: two files that look alike may behave very differently;
# - what you *can* do is measure its answers. That is why evaluation comes back in every lesson.
#
# There is one more thing in this hill. If most values crowd around zero, most bit patterns are never used. How many
# bits of *information* does a weight carry? Shannon's entropy says.

# %%
patterns, how_often = np.unique(data, return_counts=True)
probability = how_often / how_often.sum()
entropy_bits = float(-(probability * np.log2(probability)).sum())
print(f"{len(patterns):,} of 65,536 possible bit patterns occur")
print(f"a weight is stored in 16 bits and carries {entropy_bits:.1f} bits")
assert entropy_bits < 13

# %% [markdown]
# Several bits of every weight are air. Remember that when lesson 04 throws most of the bits away, and measures how
# much the answers change: the air goes first.
#
# ## Change one number
#
# Now do something rude to it. Load the model, ask it something that it knows, then look at how sure it is of each word
# of its own answer. From then on one number changes at a time.

# %%
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

chat = [{"role": "user", "content": "What is a KV cache?"}]
inputs = tokenizer.apply_chat_template(
    chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
prompt_length = inputs["input_ids"].shape[1]
with torch.no_grad():
    ids = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0]
print(f"{prompt_length} tokens in, {len(ids) - prompt_length} tokens out")

# %% tags=["measured"]
answer = tokenizer.decode(ids[prompt_length:], skip_special_tokens=True)
print(answer)

# %%
assert "key" in answer.lower()
print("the answer speaks of keys, as it should")

# %% [markdown]
# A weight is [16 bits](CLAIMS.md#bf16-bits): one sign, eight of exponent, seven of fraction. Take the number that you
# read by hand above, the first of the first layer's MLP, and flip its bits, one at a time.

# %%
predict(
    "01-harmless-bits",
    "Of the 16 bits of this one weight, how many can you flip (one at a time) "
    "without changing a word of the answer?",
    unit="bits",
)

# %%
from labsupport.notebook.one_weight import changed_weight

original = bfloat16(two_bytes)
values = [
    bfloat16((int.from_bytes(two_bytes, "little") ^ (1 << bit)).to_bytes(2, "little"))
    for bit in range(16)
]
for bit in (0, 7, 14, 15):
    print(f"bit {bit:2} flipped: {original:.6f} becomes {values[bit]:.6g}")


def answer_with(value: float) -> tuple[float, bool]:
    """How sure the model is of its answer (mean probability) and whether it would still
    choose each of its words first, with the weight at `value`."""
    with changed_weight(model, (NAME, (0, 0)), value / original), torch.no_grad():
        logits = model(ids[None]).logits[0, prompt_length - 1 : -1]
    answer = ids[prompt_length:]
    sure = torch.nan_to_num(logits.softmax(-1).gather(1, answer[:, None])).mean().item()
    return sure, bool((logits.argmax(-1) == answer).all()) and bool(
        logits.isfinite().all()
    )


# %% tags=["measured"]
untouched, _ = answer_with(original)
sureness, unchanged = zip(*(answer_with(value) for value in values), strict=True)
score("01-harmless-bits", sum(unchanged), unit="bits")

# %%
others = [bit for bit in range(16) if bit != 14]
spared = [sureness[bit] for bit in others]
assert unchanged[0]  # the lowest bit of the fraction: not a word changes
assert not unchanged[14]  # the highest bit of the exponent: it does
assert sum(unchanged[bit] for bit in others) > len(others) / 2  # and of the others?
print("of all bits but the highest of the exponent, most can be flipped unnoticed")
print(f"the file has {8 * file_bytes:,} bits, and one of them was enough")

# %% tags=["measured", "hide-input"]
groups = ["fraction"] * 7 + ["exponent"] * 8 + ["sign"]
with figure(
    alt="Sixteen bars, one for each bit of a weight: how sure the model stays of its answer when that bit is "
    f"flipped. Without a flip it is {untouched:.2f}. The highest bit of the exponent leaves {sureness[14]:.2f}; "
    f"the others leave between {min(spared):.2f} and {max(spared):.2f}.",
    table={
        "bit": [*range(16)],
        "part": groups,
        "weight becomes": values,
        "mean probability": [*sureness],
    },
    inches_tall=3.0,
) as axes:
    colours = {
        "fraction": COLOURS["sky"],
        "exponent": COLOURS["vermilion"],
        "sign": COLOURS["black"],
    }
    axes.bar(range(16), sureness, color=[colours[group] for group in groups])
    for group, colour in colours.items():
        axes.bar(0, 0, color=colour, label=group)
    axes.axhline(untouched, color=COLOURS["black"], lw=1, ls="--")
    axes.set(
        xlabel="which bit is flipped (0 is the lowest)",
        ylabel="sure of its answer",
        xticks=range(16),
        ylim=(0, 1.05),
    )
    axes.grid(axis="x", visible=False)
    axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))

# %%
assert abs(sureness[0] - untouched) < 0.05
assert sureness[14] < untouched / 2
assert sureness[14] < min(spared)  # no other bit does as much harm
print("the fatal bit leaves less than half the sureness, and less than any other bit")

# %% [markdown]
# Both halves of that picture matter.
#
# **Most flips are harmless.** Very many numbers share the work, so one that is a little off drowns in the others. That
# is the deep reason why quantization works at all: it moves *every* weight a little.
#
# **One flip is fatal.** The highest bit of the exponent turns a small number into an astronomic one. It meets every
# token, wins every sum, and the norm that follows divides everything else by it.
#
# Not all numbers are equal either. The explorer multiplies one weight of your choice. Try the MLP weight first, then
# one of the last norm, of which there are only a few hundred.

# %%
from labsupport.notebook import explore_one_weight

words = [tokenizer.decode(token) for token in ids[prompt_length:]]
loudest = int(model.model.norm.weight.abs().argmax())
PLACES = {
    "first MLP weight": (NAME, (0, 0)),
    "a weight of the last norm": ("model.norm.weight", (loudest,)),
    "a query weight": ("model.layers.0.self_attn.q_proj.weight", (0, 0)),
}
explore_one_weight(model, ids.tolist(), prompt_length, words, PLACES)

# %% [markdown]
# ## What breaks
#
# The file travels: from a hub to your registry, to a bucket, to the disk of a node, into memory. Three things go
# wrong on the way, and only one of them is noticed by itself.
#
# **Cut short.** A download that stopped early. The header promises more bytes than there are, so every loader
# notices.

# %%
import shutil
import tempfile

broken = Path(tempfile.mkdtemp()) / "model"
shutil.copytree(folder, broken)
everything = weights.read_bytes()
(broken / "model.safetensors").write_bytes(everything[:-1000])
try:
    safe_open(broken / "model.safetensors", framework="pt")
except Exception as error:
    print(f"{type(error).__name__}: refused")

# %% [markdown]
# **One bit wrong.** Flip the fatal bit of above, this time in the file. It is the same length, the header is intact,
# each tensor is where it should be.

# %%
position = (
    data_start + header[NAME]["data_offsets"][0] + 1
)  # the upper of the two bytes
damaged = bytearray(everything)
damaged[position] ^= 0b0100_0000  # bit 14 of the number is bit 6 of its upper byte
(broken / "model.safetensors").write_bytes(damaged)

loaded = AutoModelForCausalLM.from_pretrained(broken, dtype=torch.float32).eval()
with torch.no_grad():
    logits = loaded(ids[None]).logits[0, prompt_length - 1 : -1]
same_words = int((torch.nan_to_num(logits).argmax(-1) == ids[prompt_length:]).sum())
print(
    "loaded without a complaint; one number is now",
    loaded.get_parameter(NAME)[0, 0].item(),
)
assert same_words < 0.5 * (len(ids) - prompt_length)

# %% [markdown]
# No exception, no warning, a healthy process, a useless model. Your readiness probe is green. This is why a serious
# catalogue records a checksum for each file, and verifies it on every machine that the file reaches.

# %%
import hashlib

right_sum = hashlib.sha256(everything).hexdigest()
wrong_sum = hashlib.sha256(damaged).hexdigest()
print(
    "good copy passes:", hashlib.sha256(weights.read_bytes()).hexdigest() == right_sum
)
print("damaged copy passes:", wrong_sum == right_sum)
shutil.rmtree(broken.parent)

# %% [markdown]
# **Not only numbers.** Before safetensors, weights travelled as Python pickles. A pickle is not data. It is a program
# for a small machine, and loading it runs the program. Watch what this "weights file" does.

# %%
import pickle


class Payload:
    """What a pickle does when it is loaded is up to whoever wrote it."""

    def __reduce__(self):
        return (print, ("your loader has just run code that came with the weights",))


poisoned = pickle.dumps(Payload())
pickle.loads(poisoned)

# %% [markdown]
# It printed a line. It could have read your cloud credentials. So: take safetensors or GGUF, or load old files with
# `torch.load(…, weights_only=True)`, which refuses such programs. A model that asks for `trust_remote_code=True` asks
# for the same thing in plain words.
#
# ## Closed, open, open source
#
# You now know what "giving away a model" can mean, because you know the parts: **weights**, **code**, **data**. Which
# of them are released, and under which terms, decides what you may do next year.
#
# | release | what you can get | terms | so it is |
# |---|---|---|---|
# | GPT-4 (OpenAI, 2023) | answers, through an endpoint; of the rest, the report says it contains [no further details](CLAIMS.md#gpt4-report) | terms of service | **closed** |
# | Llama 3.1 (Meta, 2024) | weights and code to run them; of the data, that it is [a new mix of publicly available online data](CLAIMS.md#llama31-data) | its own licence; above [700 million monthly active users](CLAIMS.md#llama31-licence-users) you must ask | **open weights**, with conditions |
# | gpt-oss-20b (OpenAI, 2025) | weights of [21 billion parameters](CLAIMS.md#gptoss-parameters) and code to run them | [Apache 2.0](CLAIMS.md#gptoss-licence) | **open weights** |
# | DeepSeek-R1 (2025) | weights and a paper | [MIT](CLAIMS.md#r1-licence) | **open weights** |
# | OLMo 2 (Ai2, 2024) | weights, training data, training code, and a checkpoint at least [every 1000 training steps](CLAIMS.md#olmo-checkpoints) | [Apache-2.0](CLAIMS.md#olmo2-weights-licence) | **open source** |
# | pocket (this course) | everything: see below | Apache licence | **open source** |
#
# The word *open* does a lot of work in that table. The Open Source Initiative, which keeps the definition of open
# source, asks of an open-source AI system the weights, the code, and enough about the data that a
# skilled person can build a [substantially equivalent system](CLAIMS.md#osaid-data-information). (Those words are from
# the release candidate of its definition; of version 1.0, we could open a translation only, which asks for the same.)
# By that measure most "open models" are not open source. They are free binaries: useful, often excellent, and impossible to rebuild.
#
# Why should you care, if you only want to run it? Three practical differences:
#
# - **Closed:** the vendor can change, retire or re-price the model under you. Your evaluation from spring is void in autumn.
# - **Open weights:** nobody can take the file back. You can pin it, audit its behaviour, fine-tune it, run it without a
#   network. You cannot find out what it was trained on, nor remove it.
# - **Open source:** you can also rebuild it without what must not be in it, and prove what was.
#
# The model that you have just damaged is of the last kind. Here is what this repository holds to rebuild it.

# %%
import labsupport.pocket

home = Path(labsupport.pocket.__file__).parent
for what, pattern in {
    "data (its generator)": "incident_reports.py",
    "tokenizer": "tokenizer.py",
    "training code": "train*.py",
    "weights": "weights/model.safetensors",
}.items():
    found = sorted(home.glob(pattern))
    print(f"{what:22} {found[0].relative_to(home.parent.parent)}")

# %% [markdown]
# ## Why weights stay closed
#
# If open weights are so useful, why does anybody keep them in? Put yourself in the place of the company that paid.
#
# **Making is dear, copying is free.** Training the smallest Llama 3.1 took
# [1.46 million GPU hours](CLAIMS.md#llama31-8b-gpu-hours). The result is the [16.06 GB](CLAIMS.md#llama31-8b-bf16) that
# you computed above. Copying a file is cheap: measure it on yours.

# %% tags=["measured"]
import time

copy = Path(tempfile.mkdtemp()) / "copy.safetensors"
started = time.perf_counter()
shutil.copyfile(weights, copy)
copy_seconds = time.perf_counter() - started
rate = file_bytes / copy_seconds
big = anatomy.weight_bytes(shapes["llama-3.1-8b"], "bf16")
print(
    f"pocket: {copy_seconds * 1000:.1f} ms; Llama 3.1 8B at this rate: {big / rate:,.0f} s"
)
copy.unlink()

# %%
from labsupport.notebook.claims import read_ledger

ledger, _ = read_ledger(Path("claims.toml"))  # the number that the text links to
gpu_seconds_of_training = ledger["llama31-8b-gpu-hours"].base_value * 3600
assert big / rate < gpu_seconds_of_training / 10_000
print("copying takes less than a ten-thousandth of the GPU time of training: True")

# %% [markdown]
# No other asset of that value leaves the building so easily. A leaked customer database can be rotated, notified,
# insured. A leaked weights file is a finished product, and there is no recall.
#
# **The endpoint is the business.** Whoever has the weights needs no subscription. An endpoint can be metered, priced
# per token, improved in silence, and switched off for one customer.
#
# **Control.** A vendor can filter what an endpoint is asked and answers. A file on your disk asks nobody. OpenAI gave
# both reasons in one sentence when it stopped publishing architectures: "[Given both the competitive landscape and the
# safety implications of large-scale models like GPT-4](CLAIMS.md#gpt4-reasons)" the report had [no further
# details](CLAIMS.md#gpt4-report).
#
# **The recipe is worth more than the file.** Even who gives the weights away may keep the data. Asked what Mistral 7B was
# trained on, the company answered that it was [unable to share details](CLAIMS.md#mistral-training-data), because the
# field is highly competitive. And whoever publishes data can be sued over it.
#
# But closed is a matter of degree. Answers leak. Every answer of an endpoint is computed with the last matrix of the
# model, and if the endpoint also returns probabilities, enough of them give away the width of that matrix. Researchers
# did this to a commercial model for [under $1,000](CLAIMS.md#logits-leak-cost) of queries, and put its hidden size at
# about [4,096](CLAIMS.md#logits-leak-size). From `hidden_size` you can go on to guess the rest, as you did above.
#
# ## Check yourself

# %%
from labsupport.notebook import quiz

quiz("01-size")

# %%
quiz("01-nonsense")

# %%
quiz("01-open")

# %%
quiz("01-why-small-errors")

# %% [markdown]
# ## Sources
#
# Each linked number leads to its entry in the [claim ledger](CLAIMS.md), with a check that runs in CI or with a quoted
# source. Beyond those:
#
# - the safetensors format: [README of huggingface/safetensors](https://github.com/huggingface/safetensors);
# - shapes of the larger models: the sheet in `labsupport/anatomy/sheets/models.toml`, with the page each was read from.
#   The makers' own configurations could not be opened, so these are Meta's list of models, and copies that others made;
# - what an endpoint leaks: Finlayson, Ren and Swayamdipta, [Logits of API-Protected LLMs Leak Proprietary
#   Information](https://arxiv.org/abs/2403.09539).
#
# ## Next
#
# **Lab 01** makes you write what you have just read: a header parser, a parameter counter for any model of the family,
# a byte counter with quantization overhead, and a classifier of releases. Then comes lesson 02: what happens to a prompt
# between these weights and the first word of the answer.
