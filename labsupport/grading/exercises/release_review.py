"""Lab 01, exercise 4: how open is a release, and does its file hold what its config promises?

Right is the course's reading of the Open Source AI Definition 1.0, spelled out in the exercise: closed
weights cannot be had; open weights can, whatever else is missing; open source needs weights and training
code under open licences, and enough information on the training data to build an equivalent. Parameters are
counted in the file.
"""

from __future__ import annotations

import json
import random
from typing import Any

from labsupport.grading.exercise import Case, Exercise, Mistake, Part, Stumble, switches
from labsupport.grading.exercises import parameter_count
from labsupport.grading.exercises.checkpoints import (
    checkpoint,
    header_of,
    llama_config,
    llama_tensors,
    values_in,
)
from labsupport.grading.inside.plain import Bundled, Directory

OPEN_LICENCES = ("apache-2.0", "bsd-3-clause", "mit")
RESTRICTED_LICENCES = ("cc-by-nc-4.0", "creativeml-openrail-m", "gemma", "llama3.1")
POCKET = Bundled("pocket/weights")
POCKET_FACTS = {"weights": "apache-2.0", "training_code": "apache-2.0", "training_data": "released"}

OBTAINABLE, OPEN_SOURCE, COUNTED, REAL = (
    "closed or open weights",
    "open weights or open source",
    "parameters in the file",
    "the pocket model",
)


def solve(
    directory: Directory | Bundled | None,
    facts: dict[str, Any],
    *,
    need_weights: bool = True,
    need_weights_licence: bool = True,
    need_code: str = "open licence",
    need_data: str = "described",
    restricted_is_closed: bool = False,
    count: str = "parameters",
    compare: str = "file and config",
    zero_for_none: bool = False,
) -> dict[str, Any]:
    """`openness`, `parameters` in the file and whether they are `as_configured`; switches are wrong ideas."""
    weights, code, data = facts["weights"], facts["training_code"], facts["training_data"]
    code_is_open = {"open licence": code in OPEN_LICENCES, "any": code is not None, "no": True}[need_code]
    data_is_known = {
        "described": data in ("described", "released"),
        "released": data == "released",
        "no": True,
    }[need_data]
    licence_is_open = weights in OPEN_LICENCES or not need_weights_licence
    if (weights is None and need_weights) or (restricted_is_closed and weights not in OPEN_LICENCES):
        openness = "closed weights"
    elif (licence_is_open or weights is None) and code_is_open and data_is_known:
        openness = "open source"
    else:
        openness = "open weights"

    if directory is None:
        nothing = (0, False) if zero_for_none else (None, None)
        return {"openness": openness, "parameters": nothing[0], "as_configured": nothing[1]}
    header = header_of(directory.content("model.safetensors"))
    config = json.loads(directory.content("config.json"))
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    promised = parameter_count.solve(config)
    held = sum(values_in(entry["shape"]) for entry in tensors)
    parameters = {
        "parameters": held,
        "bytes": sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in tensors),
        "tensors": len(tensors),
        "config": promised,
    }[count]
    as_configured = {"file and config": held == promised, "always same": True, "always other": False}[compare]
    return {"openness": openness, "parameters": parameters, "as_configured": as_configured}


def draw(chance: random.Random) -> list[Case]:
    """Releases for every rule alone, checkpoints that keep their config's promise and that break it, the
    real one.
    """

    def facts(weights: str | None, code: str | None, data: str) -> dict[str, Any]:
        return {"weights": weights, "training_code": code, "training_data": data}

    def free() -> str:
        return chance.choice(OPEN_LICENCES)

    def restricted() -> str:
        return chance.choice(RESTRICTED_LICENCES)

    def folder(missing: str = "") -> Directory:
        config = llama_config(chance)
        tensors = {
            name: kept for name, kept in llama_tensors(config).items() if missing not in name or not missing
        }
        return checkpoint(config, tensors, chance)

    obtainable = [
        facts(None, None, "undisclosed"),
        facts(None, free(), "released"),
        facts(free(), None, "undisclosed"),
        facts(restricted(), None, "undisclosed"),
    ]
    open_source = [
        facts(free(), free(), "released"),
        facts(free(), free(), "described"),
        facts(restricted(), free(), "released"),
        facts(free(), restricted(), "released"),
        facts(free(), None, "released"),
        facts(free(), free(), "undisclosed"),
    ]
    cases = [Case((None, one), (OBTAINABLE, COUNTED)) for one in obtainable]
    cases += [Case((None, one), (OPEN_SOURCE,)) for one in open_source]
    cases += [
        Case((folder(), facts(free(), None, "undisclosed")), (COUNTED,)),
        Case((folder(missing="mlp.up_proj"), facts(free(), None, "undisclosed")), (COUNTED,)),
        Case((POCKET, dict(POCKET_FACTS)), (REAL,)),
    ]
    return cases


def openness(answer: dict[str, Any]) -> Any:
    """The part of an answer that classifies."""
    return answer["openness"]


def counted(answer: dict[str, Any]) -> Any:
    """The part of an answer that counts."""
    return [answer["parameters"], answer["as_configured"]]


MISTAKES = (
    Mistake(
        "a licence is enough",
        "You call a release open source as soon as its weights have an open licence. The licence lets you "
        "*use* the weights; to study and rebuild them you also need the training code, and to know the "
        "training data.",
        switches(need_code="no", need_data="no"),
    ),
    Mistake(
        "downloadable is open source",
        "You call whatever can be downloaded open source. Weights that you can get are *open weights*; open "
        "source needs open licences for weights and training code, and information on the training data.",
        switches(need_code="no", need_data="no", need_weights_licence=False),
    ),
    Mistake(
        "weights' licence ignored",
        "You do not look at the weights' licence. One that forbids some uses or users (commerce, large "
        "companies) makes a release open weights at most, however open its code and data are.",
        switches(need_weights_licence=False),
    ),
    Mistake(
        "training code ignored",
        "You do not look at the training code. Without it nobody can retrain the model, so the release is "
        "open weights.",
        switches(need_code="no"),
    ),
    Mistake(
        "code's licence ignored",
        "Training code was published, but look under which licence: one that is not in the list of open "
        "licences does not give the freedoms that open source needs.",
        switches(need_code="any"),
    ),
    Mistake(
        "training data ignored",
        "You do not look at the training data. Where it is undisclosed nobody can build an equivalent "
        "model, so the release is open weights, whatever the licences say.",
        switches(need_data="no"),
    ),
    Mistake(
        "data must be released",
        "Stricter than the definition: it asks for information detailed enough to build an equivalent "
        "system, not for the data itself, which is not always anybody's to give. `described` is enough.",
        switches(need_data="released"),
    ),
    Mistake(
        "restricted taken for closed",
        "A restrictive licence does not close the weights: you can still download and inspect the file. "
        "That is *open weights*. *Closed* means that you cannot have them at all.",
        switches(restricted_is_closed=True),
    ),
    Mistake(
        "no weights needed",
        "Where `weights` is `None` nobody outside can run the model at all. That is closed weights, even if "
        "code and data are published.",
        switches(need_weights=False),
    ),
    Mistake(
        "zero for not known",
        "Without a folder there is nothing to count: `parameters` and `as_configured` are then `None`, which "
        "says *not known*. 0 and `False` would say that somebody looked.",
        switches(zero_for_none=True),
    ),
    Mistake(
        "bytes for parameters",
        "`parameters` counts bytes: two for each number in bf16. Multiply the lengths in each tensor's "
        "`shape` instead, and add those up.",
        switches(count="bytes"),
    ),
    Mistake(
        "tensors for parameters",
        "`parameters` counts tensors. Each holds as many numbers as the product of its `shape`.",
        switches(count="tensors"),
    ),
    Mistake(
        "config believed",
        "You counted what the config promises. The question is what the *file* holds: add up the shapes in "
        "its header.",
        switches(count="config"),
    ),
    Mistake(
        "config believed, not compared",
        "You counted what the config promises and compared it with itself. Count what the *file* holds, "
        "from the shapes in its header, and compare the two: in one of these files a tensor is missing.",
        switches(count="config", compare="always same"),
    ),
    Mistake(
        "count that does not fit",
        "`as_configured` is false where the file does hold what its config promises. Is `count_parameters` "
        "right, for grouped-query attention and tied embeddings as well? Pass the check of exercise 2 first.",
        switches(compare="always other"),
    ),
    Mistake(
        "never compared",
        "`as_configured` is true where it should not be: compare the number of parameters in the file with "
        "`count_parameters(config)`. In one of these files tensors are missing.",
        switches(compare="always same"),
    ),
)

STUMBLES = (
    Stumble(
        "no folder",
        "A release whose weights nobody can have comes without a folder: `directory` is then `None`, and so "
        "are `parameters` and `as_configured`.",
        ("TypeError",),
        "NoneType",
    ),
    Stumble(
        "earlier exercise missing",
        "This exercise calls `read_header` and `count_parameters`: run the cells that define them first.",
        ("NameError",),
    ),
)

EXERCISE = Exercise(
    name="review_release",
    title="Review a release: how open is it, and does the file keep its promise?",
    parts=(
        Part(OBTAINABLE, 1, openness),
        Part(OPEN_SOURCE, 2, openness),
        Part(COUNTED, 1, counted),
        Part(REAL, 1),
    ),
    draw=draw,
    solve=solve,
    mistakes=MISTAKES,
    stumbles=STUMBLES,
)
