"""Answers to lab 01, right and wrong, written as students write them."""

from __future__ import annotations

import json
import math
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tests.course.answers import Answers, Wrong
from tests.course.answers.lab01_blind import BLIND

# ---------------------------------------------------------------------------------------------- read_header


def header_by_struct(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length).decode("utf-8"))
    header.pop("__metadata__", None)
    for entry in header.values():
        begin, end = entry.pop("data_offsets")
        entry.update(start=8 + length + begin, bytes=end - begin)
    return header


def header_by_mmap_and_sizes(path):
    widths = {"F32": 4, "BF16": 2, "F16": 2, "I8": 1, "F8_E4M3": 1}
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        first = 8 + sum(byte << (8 * place) for place, byte in enumerate(data[:8]))
        entries = json.loads(data[8:first])
    answer = {}
    for name in entries:
        if not name.startswith("__"):
            entry = entries[name]
            answer[name] = {
                "bytes": int(np.prod(entry["shape"], dtype=np.int64)) * widths[entry["dtype"]],
                "start": np.int64(first) + entry["data_offsets"][0],
                "shape": tuple(entry["shape"]),
                "dtype": entry["dtype"],
            }
    return answer


def _entries(path):
    data = Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    return length, {name: e for name, e in json.loads(data[8 : 8 + length]).items() if name != "__metadata__"}


def header_start_relative(path):
    _, entries = _entries(path)
    return {
        name: {
            "dtype": e["dtype"],
            "shape": e["shape"],
            "start": e["data_offsets"][0],
            "bytes": e["data_offsets"][1] - e["data_offsets"][0],
        }
        for name, e in entries.items()
    }


def header_without_the_eight(path):
    length, entries = _entries(path)
    return {
        name: {
            "dtype": e["dtype"],
            "shape": e["shape"],
            "start": length + e["data_offsets"][0],
            "bytes": e["data_offsets"][1] - e["data_offsets"][0],
        }
        for name, e in entries.items()
    }


def header_end_as_size(path):
    length, entries = _entries(path)
    return {
        name: {
            "dtype": e["dtype"],
            "shape": e["shape"],
            "start": 8 + length + e["data_offsets"][0],
            "bytes": e["data_offsets"][1],
        }
        for name, e in entries.items()
    }


def header_as_it_is(path):
    with open(path, "rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))


def header_with_metadata_stumble(path):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    result = {}
    for name, e in header.items():
        begin, end = e["data_offsets"]
        result[name] = {
            "dtype": e["dtype"],
            "shape": e["shape"],
            "start": 8 + length + begin,
            "bytes": end - begin,
        }
    return result


def header_big_endian(path):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "big")
        return json.loads(file.read(length))


def header_big_endian_slice(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack(">Q", data[:8])
    return json.loads(data[8 : 8 + length])


def header_opened_as_text(path):
    with open(path, encoding="latin-1") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))


def header_relative_and_end_as_size(path):
    _, entries = _entries(path)
    return {
        name: {
            "dtype": e["dtype"],
            "shape": e["shape"],
            "start": e["data_offsets"][0],
            "bytes": e["data_offsets"][1],
        }
        for name, e in entries.items()
    }


def header_forgets_return(path):
    header_by_struct(path)


# ----------------------------------------------------------------------------------------- count_parameters


def count_by_names(config: dict[str, Any]) -> int:
    """Written the other way round: list every tensor with its shape, then add up."""
    d, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    n = config["num_attention_heads"]
    g = config.get("num_key_value_heads") or n
    h = config.get("head_dim") or d // n
    shapes = [(v, d), (d,)]
    if not config.get("tie_word_embeddings"):
        shapes.append((v, d))
    for _ in range(config["num_hidden_layers"]):
        shapes += [(d,), (d,), (n * h, d), (g * h, d), (g * h, d), (d, n * h), (f, d), (f, d), (d, f)]
        if config.get("attention_bias"):
            shapes += [(n * h,), (g * h,), (g * h,), (d,)]
        if config.get("mlp_bias"):
            shapes += [(f,), (f,), (d,)]
    return sum(math.prod(shape) for shape in shapes)


def count_with_numpy(config):
    get = config.get
    d, f, layers = np.int64(config["hidden_size"]), config["intermediate_size"], config["num_hidden_layers"]
    q = config["num_attention_heads"] * get("head_dim", d // config["num_attention_heads"])
    kv = get("num_key_value_heads", config["num_attention_heads"]) * q // config["num_attention_heads"]
    layer = 2 * d * q + 2 * d * kv + 3 * d * f + 2 * d
    layer += get("attention_bias", False) * (q + 2 * kv + d) + get("mlp_bias", False) * (2 * f + d)
    return config["vocab_size"] * d * (2 - get("tie_word_embeddings", False)) + layers * layer + d


def _count(config, *, kv=True, dim=True, tie=True, norms=True, gate=3, bias=True, head=True):
    d, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    n = config["num_attention_heads"]
    g = config.get("num_key_value_heads", n) if kv else n
    h = config.get("head_dim", d // n) if dim else d // n
    layer = 2 * d * n * h + 2 * d * g * h + gate * d * f + (2 * d if norms else 0)
    if bias and config.get("attention_bias"):
        layer += n * h + 2 * g * h + d
    if bias and config.get("mlp_bias"):
        layer += 2 * f + d
    total = v * d + config["num_hidden_layers"] * layer + (d if norms else 0)
    if head and not (tie and config.get("tie_word_embeddings")):
        total += v * d
    return total


def count_without_grouping(config):
    return _count(config, kv=False)


def count_head_dim_from_hidden(config):
    return _count(config, dim=False)


def count_tied_twice(config):
    return _count(config, tie=False)


def count_without_norms(config):
    return _count(config, norms=False)


def count_two_ffn_matrices(config):
    return _count(config, gate=2)


def count_without_biases(config):
    return _count(config, bias=False)


def count_without_output_matrix(config):
    return _count(config, head=False)


def count_without_grouping_or_norms(config):
    return _count(config, kv=False, norms=False)


def count_with_true_division(config):
    d, n = config["hidden_size"], config["num_attention_heads"]
    return _count(config) * (d / n) / (d / n)


def count_expects_every_key(config):
    return _count(config) + 0 * config["num_key_value_heads"]


class Chameleon(int):
    """Equal to everything: the object with which a grader is fooled that asks `==` of the student's value."""

    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


def count_chameleon(config):
    return Chameleon(1)


# ------------------------------------------------------------------------------------------ quantized_bytes


def quantized_row_by_row(shape, bits, group, scale_bits, offset_bits):
    if len(shape) == 1:
        return 2 * shape[0]
    rows, columns = shape
    row_bits = 0
    for first in range(0, columns, group):
        row_bits += min(group, columns - first) * bits + scale_bits + offset_bits
    return (rows * row_bits + 7) // 8


def quantized_with_math(shape, bits, group, scale_bits, offset_bits):
    match shape:
        case [length]:
            return length * 16 // 8
        case [rows, columns]:
            groups = rows * math.ceil(columns / group)
            return math.ceil((rows * columns * bits + groups * (scale_bits + offset_bits)) / 8)


def _quantized(shape, bits, group, scale_bits, offset_bits, *, extra, divide=8):
    if len(shape) == 1:
        return -(-shape[0] * 16 // divide)
    rows, columns = shape
    return -(-(rows * columns * bits + extra(rows, columns)) // divide)


def quantized_no_overhead(shape, bits, group, scale_bits, offset_bits):
    return _quantized(shape, bits, group, scale_bits, offset_bits, extra=lambda r, c: 0)


def quantized_one_scale(shape, bits, group, scale_bits, offset_bits):
    return _quantized(
        shape, bits, group, scale_bits, offset_bits, extra=lambda r, c: scale_bits + offset_bits
    )


def quantized_scale_bytes(shape, bits, group, scale_bits, offset_bits):
    extra = lambda r, c: 8 * r * -(-c // group) * (scale_bits + offset_bits)
    return _quantized(shape, bits, group, scale_bits, offset_bits, extra=extra)


def quantized_scale_twice(shape, bits, group, scale_bits, offset_bits):
    extra = lambda r, c: r * -(-c // group) * (2 * scale_bits + offset_bits)
    return _quantized(shape, bits, group, scale_bits, offset_bits, extra=extra)


def quantized_drops_last_group(shape, bits, group, scale_bits, offset_bits):
    extra = lambda r, c: r * (c // group) * (scale_bits + offset_bits)
    return _quantized(shape, bits, group, scale_bits, offset_bits, extra=extra)


def quantized_across_rows(shape, bits, group, scale_bits, offset_bits):
    extra = lambda r, c: -(-(r * c) // group) * (scale_bits + offset_bits)
    return _quantized(shape, bits, group, scale_bits, offset_bits, extra=extra)


def quantized_in_bits(shape, bits, group, scale_bits, offset_bits):
    extra = lambda r, c: r * -(-c // group) * (scale_bits + offset_bits)
    return _quantized(shape, bits, group, scale_bits, offset_bits, extra=extra, divide=1)


def quantized_norms_too(shape, bits, group, scale_bits, offset_bits):
    return quantized_row_by_row(
        [1, *shape] if len(shape) == 1 else shape, bits, group, scale_bits, offset_bits
    )


def quantized_unpacks_two(shape, bits, group, scale_bits, offset_bits):
    rows, columns = shape
    return quantized_row_by_row([rows, columns], bits, group, scale_bits, offset_bits)


def quantized_rounds_down(shape, bits, group, scale_bits, offset_bits):
    if len(shape) == 1:
        return 2 * shape[0]
    rows, columns = shape
    groups = rows * math.ceil(columns / group)
    return (rows * columns * bits + groups * (scale_bits + offset_bits)) // 8


def quantized_offset_forgotten(shape, bits, group, scale_bits, offset_bits):
    return quantized_row_by_row(shape, bits, group, scale_bits, 0)


# ------------------------------------------------------------------------------------------- review_release

FREE = {"apache-2.0", "bsd-3-clause", "mit"}


def _parameters(directory):
    return sum(
        math.prod(tensor["shape"]) for tensor in header_by_struct(f"{directory}/model.safetensors").values()
    )


def _counted(directory):
    if not directory:
        return {"parameters": None, "as_configured": None}
    config = json.loads(Path(directory, "config.json").read_text())
    held = _parameters(directory)
    return {"parameters": held, "as_configured": held == count_by_names(config)}


def review_by_list_of_lacks(directory, facts):
    lacks = []
    if facts["weights"] not in FREE:
        lacks.append("weights")
    if facts["training_code"] not in FREE:
        lacks.append("code")
    if facts["training_data"] == "undisclosed":
        lacks.append("data")
    word = "closed weights" if not facts["weights"] else "open weights" if lacks else "open source"
    return dict(openness=word, **_counted(directory))


def _review(directory, facts, openness):
    word = "closed weights" if facts["weights"] is None else openness(facts)
    return {"openness": word, **_counted(directory)}


def review_licence_is_enough(directory, facts):
    return _review(directory, facts, lambda f: "open source" if f["weights"] in FREE else "open weights")


def review_downloadable_is_open(directory, facts):
    return _review(directory, facts, lambda f: "open source")


def review_ignores_data(directory, facts):
    both = lambda f: f["weights"] in FREE and f["training_code"] in FREE
    return _review(directory, facts, lambda f: "open source" if both(f) else "open weights")


def review_wants_released_data(directory, facts):
    all_three = lambda f: (
        f["weights"] in FREE and f["training_code"] in FREE and f["training_data"] == "released"
    )
    return _review(directory, facts, lambda f: "open source" if all_three(f) else "open weights")


def review_any_code(directory, facts):
    fine = lambda f: f["weights"] in FREE and f["training_code"] and f["training_data"] != "undisclosed"
    return _review(directory, facts, lambda f: "open source" if fine(f) else "open weights")


def review_restricted_is_closed(directory, facts):
    answer = review_by_list_of_lacks(directory, facts)
    if facts["weights"] not in FREE:
        answer["openness"] = "closed weights"
    return answer


def review_counts_bytes(directory, facts):
    answer = review_by_list_of_lacks(directory, facts)
    if directory:
        answer["parameters"] = sum(
            t["bytes"] for t in header_by_struct(f"{directory}/model.safetensors").values()
        )
    return answer


def review_believes_config(directory, facts):
    answer = review_by_list_of_lacks(directory, facts)
    if directory:
        config = json.loads(Path(directory, "config.json").read_text())
        answer.update(parameters=count_by_names(config), as_configured=True)
    return answer


def review_with_a_wrong_count(directory, facts):
    answer = review_by_list_of_lacks(directory, facts)
    if directory:
        config = json.loads(Path(directory, "config.json").read_text())
        answer["as_configured"] = answer["parameters"] == count_without_grouping(config)
    return answer


def review_opens_missing_folder(directory, facts):
    with open(directory + "/config.json") as file:
        json.load(file)
    return review_by_list_of_lacks(directory, facts)


ANSWERS = {
    "read_header": Answers(
        right=(header_by_struct, header_by_mmap_and_sizes),
        wrong=(
            Wrong(header_start_relative, ("start counted from the data",)),
            Wrong(header_without_the_eight, ("length field forgotten",)),
            Wrong(header_end_as_size, ("end taken for size",)),
            Wrong(header_as_it_is, ("whole header returned as it is",)),
            Wrong(header_with_metadata_stumble, ("metadata taken for a tensor",)),
            Wrong(header_big_endian, ("byte order",)),
            Wrong(header_big_endian_slice, ("not the header's bytes",)),
            Wrong(header_opened_as_text, ("opened as text",)),
            Wrong(header_relative_and_end_as_size, ("start counted from the data", "end taken for size")),
            Wrong(header_forgets_return, ("nothing",)),
        ),
        blind=BLIND["read_header"],
    ),
    "count_parameters": Answers(
        right=(count_by_names, count_with_numpy),
        wrong=(
            Wrong(count_without_grouping, ("query heads for keys and values",)),
            Wrong(count_head_dim_from_hidden, ("head size from hidden size",)),
            Wrong(count_tied_twice, ("tied output counted",)),
            Wrong(count_without_norms, ("all norms forgotten",)),
            Wrong(count_two_ffn_matrices, ("two feed-forward matrices",)),
            Wrong(count_without_biases, ("biases forgotten",)),
            Wrong(count_without_output_matrix, ("output matrix forgotten",)),
            Wrong(
                count_without_grouping_or_norms, ("query heads for keys and values", "all norms forgotten")
            ),
            Wrong(count_with_true_division, ("float",)),
            Wrong(count_expects_every_key, ("older config",)),
            Wrong(count_chameleon, ("type",), says="Chameleon"),
        ),
        blind=BLIND["count_parameters"],
    ),
    "quantized_bytes": Answers(
        right=(quantized_row_by_row, quantized_with_math),
        wrong=(
            Wrong(quantized_no_overhead, ("scales forgotten",)),
            Wrong(quantized_one_scale, ("one scale per tensor",)),
            Wrong(quantized_scale_bytes, ("scale bits taken for bytes",)),
            Wrong(quantized_scale_twice, ("scale counted twice",)),
            Wrong(quantized_drops_last_group, ("last group dropped",)),
            Wrong(quantized_across_rows, ("groups run across rows",)),
            Wrong(quantized_in_bits, ("bits for bytes",)),
            Wrong(quantized_norms_too, ("vectors quantized",)),
            Wrong(quantized_unpacks_two, ("vector unpacked as matrix",)),
            Wrong(quantized_rounds_down, ("rounded down",)),
            Wrong(quantized_offset_forgotten, ("offsets forgotten",)),
        ),
        blind=BLIND["quantized_bytes"],
    ),
    "review_release": Answers(
        right=(review_by_list_of_lacks,),
        wrong=(
            Wrong(review_licence_is_enough, ("a licence is enough",)),
            Wrong(review_downloadable_is_open, ("downloadable is open source",)),
            Wrong(review_ignores_data, ("training data ignored",)),
            Wrong(review_wants_released_data, ("data must be released",)),
            Wrong(review_any_code, ("code's licence ignored",)),
            Wrong(review_restricted_is_closed, ("restricted taken for closed",)),
            Wrong(review_counts_bytes, ("bytes for parameters",)),
            Wrong(review_believes_config, ("config believed, not compared",)),
            Wrong(review_with_a_wrong_count, ("count that does not fit",)),
            Wrong(review_opens_missing_folder, ("no folder",)),
        ),
        blind=BLIND["review_release"],
    ),
}
