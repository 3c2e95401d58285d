"""What an engine process is started with.

Right means: every number is checked here, before a native library sees it, because some of llama.cpp's own
checks end the process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import msgspec

from labsupport.errors import LabsupportError

EngineName = Literal["auto", "llama", "bnb"]
KVType = Literal["f16", "q8_0", "q4_0"]
Admission = Literal["reserve", "preempt"]
Fairness = Literal["keys", "none"]
PrefixScope = Literal["all", "key"]

BNB_QUANTIZATIONS = ("nf4", "int8", "bf16", "fp32")
"""What the bnb engine can load a checkpoint in."""
LARGEST_SEQUENCE_COUNT = 256
"""llama.cpp's LLAMA_MAX_SEQ: how many sequences one context can tell apart."""
LARGEST_WEIGHT = 1000
"""How many times another's share a key can get."""


def _lever(text: str, low: int | None = None, high: int | None = None) -> msgspec.Meta:
    return msgspec.Meta(description=text, ge=low, le=high)


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine's settings; `checked()` before use.

    What carries a description is a lever: its text says what it does, what that costs and when to turn it,
    and `labsupport serve --help` shows the same text (see `levers`). The other four:

    model: path of a GGUF file, which llama serves, or of a Hugging Face checkpoint's folder, which bnb does.
    engine: which runner; `auto` takes the one for the model's kind, and the best device that it can use.
    quantization: what bnb loads the checkpoint in, `nf4` if empty. A GGUF file brings its own.
    key_weights: of API keys that get so many times the share of others, where `fairness` is `keys`.
    """

    model: str
    engine: EngineName = "auto"
    quantization: str = ""
    key_weights: dict[str, int] = {}
    slots: Annotated[
        int,
        _lever(
            "how many sequences run at once. More of them share each step, so that more tokens come out "
            "of it, but every step takes longer, and all share the same cells. Raise it while requests "
            "wait and the time between tokens is better than you need.",
            1,
            LARGEST_SEQUENCE_COUNT,
        ),
    ] = 16
    context_tokens: Annotated[
        int,
        _lever(
            "the longest sequence, prompt and answer together, in tokens; 0 takes what the model was "
            "trained for, at most 4,096. A longer one lets each request claim more cells, so that fewer "
            "run at once. Lower it to what your requests need.",
            0,
            2**24,
        ),
    ] = 0
    kv_cells: Annotated[
        int,
        _lever(
            "tokens' worth of KV cache that all sequences share; 0 takes as many as slots contexts, at "
            "most 16,384. They cost memory, whether they are used or not. Raise it when requests wait "
            "though slots are free.",
            0,
            2**28,
        ),
    ] = 0
    kv_type: Annotated[
        KVType,
        _lever(
            "number format of the KV cache. q8_0 and q4_0 hold a token in fewer bytes, but the keys and "
            "values are rounded, which the answers may show. Turn to it where memory is what limits the "
            "cells. bnb has only f16: it keeps them as it computes, in 16 bits on a GPU."
        ),
    ] = "f16"
    step_tokens: Annotated[
        int,
        _lever(
            "most tokens in one step. Decodes come first, one token each; prompts are computed in chunks "
            "of what is left, so it bounds how long a prompt can hold up everybody else's next token. "
            "Fewer make for an even stream and a later first token, more for the opposite. At least as "
            "many as slots. 0 takes 128, or with llama, where a step is short all the same, 512 with weights "
            "of less than 256 MiB and 2,048 with less than 64.",
            0,
            2**16,
        ),
    ] = 0
    mixed_step_tokens: Annotated[
        int,
        _lever(
            "most tokens in a step in which some sequences decode; 0 takes step_tokens. The fewer, the "
            "sooner everybody's next token comes while others' prompts are computed, and the later these "
            "prompts' first; and small pieces cost more. Lower it where an even stream is worth more than "
            "throughput. At least as many as slots.",
            0,
            2**16,
        ),
    ] = 0
    admission: Annotated[
        Admission,
        _lever(
            "reserve lets a request in when its worst case fits (prompt and max_tokens), so what runs is "
            "never interrupted, but cells are kept free for answers that may end early. preempt lets it "
            "in when its prompt fits, and when cells run out the request that came last goes back to the "
            "queue and is computed again. Turn to preempt where max_tokens is much larger than most "
            "answers."
        ),
    ] = "reserve"
    fairness: Annotated[
        Fairness,
        _lever(
            "keys gives the next slot to the API key that was served least, and shares a step's prompt "
            "tokens between keys, so that one key's flood holds up only itself; a key that was silent is "
            "owed nothing. Requests without a key are one key's together. none lets in first come, first "
            "served. It costs the order of arrival between keys: turn it off where that matters."
        ),
    ] = "keys"
    prefix_slots: Annotated[
        int,
        _lever(
            "how many finished sequences are kept at most, for prompts that begin with the same tokens "
            "and need not compute them again. They take cells only while nobody else needs them, and "
            "slots of their own; and as each makes everybody's attention slower, only as many are kept "
            "as prompts were seen to ask for. Raise it with the number of different system prompts and "
            "conversations; 0 switches prefix sharing off, also between requests that run.",
            0,
            LARGEST_SEQUENCE_COUNT,
        ),
    ] = 16
    prefix_scope: Annotated[
        PrefixScope,
        _lever(
            "all shares prefixes between all requests, so that a system prompt of many keys is computed "
            "once. But who guesses how another key's prompt begins sees by the cached_tokens and by how soon "
            "the answer comes that the guess was right. key shares them between requests of one API key "
            "alone: turn to it where keys belong to people who must not learn of each other's prompts."
        ),
    ] = "all"
    patience_seconds: Annotated[
        float,
        _lever(
            "what a step of priority is worth: a request of priority p queues as if it had arrived p "
            "times this much later, so a higher number waits longer but never for ever. A longer patience "
            "keeps batch work out of the way for longer. 0 ignores priorities.",
            0,
            10**6,
        ),
    ] = 10.0
    threads: Annotated[
        int,
        _lever(
            "CPU threads; 0 takes one per physical core, at most 8. Where the weights take less than 64 MiB "
            "and fewer are as fast, which is tried at load, decodes take fewer, and so do decodes that "
            "become slow because other work takes a core. Ask for fewer where that other work must not be "
            "slowed by this.",
            0,
            512,
        ),
    ] = 0
    spare_cores: Annotated[
        int,
        _lever(
            "CPU threads less for decodes of a model that is so small that a single token has no use for "
            "all of them: its tokens come faster than HTTP can pass them on, which needs a core for that. "
            "0 where nobody has to, as in your own process. llama only.",
            0,
            512,
        ),
    ] = 1
    prompt_threads: Annotated[
        int,
        _lever(
            "CPU threads of steps that compute prompts; 0 takes as many as threads. Prompts are limited "
            "by arithmetic and single tokens by memory, so on a machine with many cores prompts can use "
            "more of them. llama only.",
            0,
            512,
        ),
    ] = 0
    n_gpu_layers: Annotated[
        int,
        _lever(
            "layers to put on a GPU; -1 is all of them where the build can use one, 0 none. Each takes "
            "GPU memory. Lower it when a model does not fit; every layer left on the CPU slows every "
            "step.",
            -1,
            10_000,
        ),
    ] = -1

    def checked(self) -> EngineConfig:
        """This configuration, once every setting is possible. Raises ConfigRefused with what was given."""
        for name, meta in lever_metas().items():
            value = getattr(self, name)
            if isinstance(value, (int, float)) and not (meta.ge or 0) <= value <= (meta.le or 0):
                raise ConfigRefused(f"{name} is {value}", allowed=f"{meta.ge} to {meta.le}")
        for name, hint in get_type_hints(EngineConfig).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise ConfigRefused(f"{name} is {getattr(self, name)!r}", allowed=", ".join(get_args(hint)))
        if self.quantization not in ("", *BNB_QUANTIZATIONS):
            allowed = ", ".join(BNB_QUANTIZATIONS)
            raise ConfigRefused(f"quantization is {self.quantization!r}", allowed=allowed)
        for key, weight in self.key_weights.items():
            if not 1 <= weight <= LARGEST_WEIGHT:
                raise ConfigRefused(
                    f"the weight of the key {key} is {weight}", allowed=f"1 to {LARGEST_WEIGHT}"
                )
        if self.slots + self.prefix_slots > LARGEST_SEQUENCE_COUNT:
            raise ConfigRefused(
                f"slots is {self.slots} and prefix_slots {self.prefix_slots}",
                allowed=f"at most {LARGEST_SEQUENCE_COUNT} together",
            )
        if 0 < self.step_tokens < self.slots:
            raise ConfigRefused(
                f"step_tokens is {self.step_tokens} with {self.slots} slots",
                allowed="0, or at least one token per slot: a running sequence could be left out of a step",
            )
        if 0 < self.mixed_step_tokens < self.slots:
            raise ConfigRefused(
                f"mixed_step_tokens is {self.mixed_step_tokens} with {self.slots} slots",
                allowed="0, or at least one token per slot",
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
        if self.prompt_threads:
            raise ConfigRefused("prompt_threads does nothing with the bnb engine", allowed="0")
        if self.n_gpu_layers not in (-1, 0):
            raise ConfigRefused(
                f"n_gpu_layers is {self.n_gpu_layers} with the bnb engine",
                allowed="-1 (all layers on a GPU where there is one) or 0 (none)",
            )


def lever_metas() -> dict[str, msgspec.Meta]:
    """The description and the range of each lever, by its field's name, in the order above."""
    hints = get_type_hints(EngineConfig, include_extras=True)
    return {name: hints[name].__metadata__[0] for name in hints if hasattr(hints[name], "__metadata__")}


class ConfigRefused(LabsupportError):
    """An engine setting that is impossible."""
