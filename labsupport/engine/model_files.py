"""From a model's name to the files that an engine runs it from; what is missing is pulled and made.

Right means: the engine is chosen before anything is fetched, so that no checkpoint of gigabytes is converted
for an engine that does not read it; and torch is not imported to find out what it can do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labsupport import models
from labsupport.engine.config import EngineName
from labsupport.engine.selection import Engine, choose, torch_has_cuda
from labsupport.machine import nvidia
from labsupport.models.catalogue import entries, entry


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """What serves a model.

    engine, quantization: which engine takes it, and in what.
    weights: what that engine loads, a GGUF file or a checkpoint's folder.
    vocabulary: a GGUF file with its tokenizer and chat template.
    """

    engine: Engine
    quantization: str
    weights: Path
    vocabulary: Path


def prepare(
    name: str, quantization: str = "", *, engine: EngineName = "auto", n_gpu_layers: int = -1
) -> ModelFiles:
    """The files of a model, for the engine that is asked for or, with `auto`, the best that the machine has.

    `name` is as in `models.path`; `quantization` "" takes the engine's default. Raises QuantizationRefused if
    they do not go together, and what `models.path` and `models.checkpoint` raise.
    """
    torch_cuda = torch_has_cuda()
    has_cuda = torch_cuda and bool(nvidia.gpus())
    taken, quantization = choose(
        engine,
        quantization.lower(),
        has_checkpoint=_has_checkpoint(name),
        has_cuda=has_cuda,
        torch_has_cuda=torch_cuda,
        llama_offloads=has_cuda and _llama_offloads(),
        n_gpu_layers=n_gpu_layers,
    )
    if taken == "bnb":
        return ModelFiles(
            engine=taken,
            quantization=quantization,
            weights=models.checkpoint(name),
            vocabulary=models.vocabulary(name),
        )
    path = models.path(name, quantization)
    return ModelFiles(engine=taken, quantization=quantization, weights=path, vocabulary=path)


def _has_checkpoint(name: str) -> bool:
    """Whether a model is more than a GGUF file. An unknown name is; `models` has the words for it."""
    return not name.endswith(".gguf") and not (name in entries() and entry(name).kind == "synthetic")


def _llama_offloads() -> bool:
    import llama_cpp

    return bool(llama_cpp.llama_supports_gpu_offload())
