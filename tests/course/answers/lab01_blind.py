"""Wrong answers to lab 01 by somebody who had read its exercises and none of its checker.

`says` holds the word without which the message would not teach: written down before the checker was tried.
"""

from __future__ import annotations

import json
import math
import struct

from tests.course.answers import Wrong


def header_start_after_rewritten_json(path):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = 8 + len(json.dumps(header, separators=(",", ":")))
    header.pop("__metadata__", None)
    return {
        name: {
            "dtype": entry["dtype"],
            "shape": entry["shape"],
            "start": data + entry["data_offsets"][0],
            "bytes": entry["data_offsets"][1] - entry["data_offsets"][0],
        }
        for name, entry in header.items()
    }


def header_counts_numbers_not_bytes(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: {
            "dtype": entry["dtype"],
            "shape": entry["shape"],
            "start": 8 + length + entry["data_offsets"][0],
            "bytes": math.prod(entry["shape"]),
        }
        for name, entry in header.items()
    }


def header_length_of_four_bytes(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<I", file.read(4))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: {
            "dtype": entry["dtype"],
            "shape": entry["shape"],
            "start": 4 + length + entry["data_offsets"][0],
            "bytes": entry["data_offsets"][1] - entry["data_offsets"][0],
        }
        for name, entry in header.items()
    }


def _count(config, *, norms_per_layer=2, tied_by_default=False, dim_by_kv_heads=False):
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    dim = config.get("head_dim", hidden // (kv_heads if dim_by_kv_heads else heads))
    ffn, vocabulary = config["intermediate_size"], config["vocab_size"]
    attention = 2 * hidden * heads * dim + 2 * hidden * kv_heads * dim
    mlp = 3 * hidden * ffn
    if config.get("attention_bias", False):
        attention += heads * dim + 2 * kv_heads * dim + hidden
    if config.get("mlp_bias", False):
        mlp += 2 * ffn + hidden
    embeddings = 1 if config.get("tie_word_embeddings", tied_by_default) else 2
    layers = config["num_hidden_layers"] * (attention + mlp + norms_per_layer * hidden)
    return embeddings * vocabulary * hidden + layers + hidden


def count_with_one_norm_per_layer(config):
    return _count(config, norms_per_layer=1)


def count_tied_unless_told(config):
    return _count(config, tied_by_default=True)


def count_head_dim_by_kv_heads(config):
    return _count(config, dim_by_kv_heads=True)


def quantized_rows_rounded_up(shape, bits, group, scale_bits, offset_bits):
    if len(shape) == 1:
        return 2 * shape[0]
    rows, columns = shape
    row = columns * bits + math.ceil(columns / group) * (scale_bits + offset_bits)
    return rows * math.ceil(row / 8)


def quantized_groups_across_rows(shape, bits, group, scale_bits, offset_bits):
    if len(shape) == 1:
        return 2 * shape[0]
    numbers = shape[0] * shape[1]
    return math.ceil((numbers * bits + math.ceil(numbers / group) * (scale_bits + offset_bits)) / 8)


def quantized_last_group_filled_up(shape, bits, group, scale_bits, offset_bits):
    if len(shape) == 1:
        return 2 * shape[0]
    groups = shape[0] * math.ceil(shape[1] / group)
    return math.ceil(groups * (group * bits + scale_bits + offset_bits) / 8)


def _openness(facts, *, enough_data=("described", "released")):
    if facts["weights"] is None:
        return "closed weights"
    free = {"apache-2.0", "bsd-3-clause", "mit"}
    if facts["weights"] in free and facts["training_code"] in free and facts["training_data"] in enough_data:
        return "open source"
    return "open weights"


def _numbers(directory):
    with open(f"{directory}/model.safetensors", "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    header.pop("__metadata__", None)
    return [math.prod(entry["shape"]) for entry in header.values()], header


def _promised(directory):
    with open(f"{directory}/config.json") as file:
        return _count(json.load(file))


def review_demands_the_data_itself(directory, facts):
    openness = _openness(facts, enough_data=("released",))
    if directory is None:
        return {"openness": openness, "parameters": None, "as_configured": None}
    total = sum(_numbers(directory)[0])
    return {"openness": openness, "parameters": total, "as_configured": total == _promised(directory)}


def review_trusts_the_config(directory, facts):
    if directory is None:
        return {"openness": _openness(facts), "parameters": None, "as_configured": None}
    return {"openness": _openness(facts), "parameters": _promised(directory), "as_configured": True}


def review_says_false_without_a_folder(directory, facts):
    if directory is None:
        return {"openness": _openness(facts), "parameters": 0, "as_configured": False}
    total = sum(_numbers(directory)[0])
    return {
        "openness": _openness(facts),
        "parameters": total,
        "as_configured": total == _promised(directory),
    }


BLIND = {
    "read_header": (
        Wrong(header_start_after_rewritten_json, says="padding"),
        Wrong(header_counts_numbers_not_bytes, says="numbers"),
        Wrong(header_length_of_four_bytes, says="8 bytes"),
    ),
    "count_parameters": (
        Wrong(count_with_one_norm_per_layer, says="norm"),
        Wrong(count_tied_unless_told, says="tie"),
        Wrong(count_head_dim_by_kv_heads, says="head_dim"),
    ),
    "quantized_bytes": (
        Wrong(quantized_rows_rounded_up, says="row"),
        Wrong(quantized_groups_across_rows, says="row"),
        Wrong(quantized_last_group_filled_up, says="filled up"),
    ),
    "review_release": (
        Wrong(review_demands_the_data_itself, says="described"),
        Wrong(review_trusts_the_config, says="file"),
        Wrong(review_says_false_without_a_folder, says="None"),
    ),
}
