"""What an engine process is started with.

Right means: every number is checked here, before a native library sees it, because some of llama.cpp's own
checks end the process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from labsupport.errors import LabsupportError

EngineName = Literal["auto", "llama", "bnb"]
KVType = Literal["f16", "q8_0", "q4_0"]
Admission = Literal["reserve", "preempt"]
Fairness = Literal["keys", "none"]

BNB_QUANTIZATIONS = ("nf4", "int8", "bf16", "fp32")
"""What the bnb engine can load a checkpoint in."""
LARGEST_SEQUENCE_COUNT = 256
"""llama.cpp's LLAMA_MAX_SEQ: how many sequences one context can tell apart."""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine's settings; `checked()` before use.

    model: path of a GGUF file, which llama serves, or of a Hugging Face checkpoint's folder, which bnb does.
    engine: which runner; `auto` takes the one for the model's kind, and the best device that it can use.
    quantization: what bnb loads the checkpoint in, `nf4` if empty. A GGUF file brings its own.
    context_tokens: the longest sequence (prompt and answer); 0 takes what the model was trained for, at most
        4,096.
    slots: how many sequences run at once.
    kv_cells: tokens' worth of KV cache that all sequences share; 0 takes `slots` contexts, at most 16,384.
    kv_type: number format of the KV cache; bnb keeps it as it computes, in 16 bits on a GPU.
    step_tokens: most tokens in one step; a long prompt is computed in chunks of at most this many, so it
        bounds how long one prompt can hold up everybody else's next token.
    admission: `reserve` admits a request when its worst case fits; `preempt` when its prompt fits, and takes
        memory back from the youngest request when it runs out (that one is computed again later).
    prefix_slots: how many finished sequences are kept for their prefix; 0 switches prefix sharing off.
    patience_seconds: a request of priority p queues as if it had arrived p times this much later, so a higher
        number waits longer but never for ever.
    threads: CPU threads; 0 takes one per physical core but one, at most 8: that core is for everybody else.
    n_gpu_layers: layers to put on a GPU; -1 is all of them where the build has one, 0 none.
    """

    model: str
    engine: EngineName = "auto"
    quantization: str = ""
    context_tokens: int = 0
    slots: int = 16
    kv_cells: int = 0
    kv_type: KVType = "f16"
    step_tokens: int = 128
    admission: Admission = "reserve"
    fairness: Fairness = "keys"
    key_weights: dict[str, int] = {}
    prefix_slots: int = 16
    patience_seconds: float = 10.0
    threads: int = 0
    n_gpu_layers: int = -1

    def checked(self) -> EngineConfig:
        """This configuration, once every setting is possible. Raises ConfigRefused with what was given."""
        for name, value, low, high in (
            ("context_tokens", self.context_tokens, 0, 2**24),
            ("slots", self.slots, 1, LARGEST_SEQUENCE_COUNT),
            ("kv_cells", self.kv_cells, 0, 2**28),
            ("step_tokens", self.step_tokens, 1, 2**16),
            ("prefix_slots", self.prefix_slots, 0, LARGEST_SEQUENCE_COUNT),
            ("patience_seconds", self.patience_seconds, 0, 1e6),
            ("threads", self.threads, 0, 512),
            ("n_gpu_layers", self.n_gpu_layers, -1, 10_000),
        ):
            if not low <= value <= high:
                raise ConfigRefused(f"{name} is {value}", allowed=f"{low} to {high}")
        for name, text, choices in (
            ("engine", self.engine, ("auto", "llama", "bnb")),
            ("quantization", self.quantization, ("", *BNB_QUANTIZATIONS)),
            ("kv_type", self.kv_type, ("f16", "q8_0", "q4_0")),
            ("admission", self.admission, ("reserve", "preempt")),
        ):
            if text not in choices:
                raise ConfigRefused(f"{name} is {text!r}", allowed=", ".join(choices))
        if self.slots + self.prefix_slots > LARGEST_SEQUENCE_COUNT:
            raise ConfigRefused(
                f"slots is {self.slots} and prefix_slots {self.prefix_slots}",
                allowed=f"at most {LARGEST_SEQUENCE_COUNT} together",
            )
        if self.step_tokens < self.slots:
            raise ConfigRefused(
                f"step_tokens is {self.step_tokens} with {self.slots} slots",
                allowed="at least one token per slot, or a running sequence could be left out of a step",
            )
        if self.kv_cells and self.kv_cells < self.context_tokens:
            raise ConfigRefused(
                f"kv_cells is {self.kv_cells} with context_tokens {self.context_tokens}",
                allowed="at least one full context, or the longest request could never run",
            )
        if self.is_checkpoint:
            self._refuse_for_checkpoint()
        elif not Path(self.model).is_file():
            raise ConfigRefused(
                f"there is no model file at {self.model}",
                remedy="`labsupport models path NAME --quant Q` makes a model and prints its file.",
            )
        elif self.engine == "bnb" or self.quantization:
            raise ConfigRefused(
                f"the bnb engine cannot read the file {self.model}",
                allowed="the folder of a Hugging Face checkpoint",
                remedy="The llama engine serves GGUF files, in the quantization that they have.",
            )
        return self

    @property
    def is_checkpoint(self) -> bool:
        """Whether the model is a Hugging Face checkpoint's folder, and so one for bnb."""
        return (Path(self.model) / "config.json").is_file()

    def _refuse_for_checkpoint(self) -> None:
        if self.engine == "llama":
            raise ConfigRefused(
                f"the llama engine cannot read the checkpoint {self.model}",
                allowed="a GGUF file",
                remedy="`labsupport models path NAME --quant Q` makes one and prints its path.",
            )
        if self.kv_type != "f16":
            raise ConfigRefused(
                f"kv_type is {self.kv_type!r} with the bnb engine",
                allowed="f16: its KV cache has the format that it computes in",
                remedy="The llama engine has quantized KV caches.",
            )
        if self.n_gpu_layers not in (-1, 0):
            raise ConfigRefused(
                f"n_gpu_layers is {self.n_gpu_layers} with the bnb engine",
                allowed="-1 (all layers on a GPU where there is one) or 0 (none)",
            )


class ConfigRefused(LabsupportError):
    """An engine setting that is impossible."""
