"""The same engine without a process of its own: for evaluation, measurement and a first look.

Right means: the text is what the engine process would give, because scheduler, runner and detokenizer are the
very same ones.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from labsupport.engine import loading
from labsupport.engine.config import EngineConfig
from labsupport.engine.messages import Delta, FinishReason, SamplingParams, TokenLogprob
from labsupport.engine.plan import CellsExhausted, Runner
from labsupport.engine.scheduler import Scheduler
from labsupport.engine.sequence import Sequence as EngineSequence
from labsupport.engine.transcript import Transcripts
from labsupport.engine.validation import refuse_impossible


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What one prompt gave. `tokens` are the generated ones, an end token included."""

    tokens: tuple[int, ...] = ()
    text: str = ""
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    cached_tokens: int = 0

    def extended(self, delta: Delta) -> Completion:
        return replace(
            self,
            tokens=self.tokens + delta.tokens,
            text=self.text + delta.text,
            finish_reason=delta.finish_reason,
            logprobs=self.logprobs + delta.logprobs,
            cached_tokens=delta.cached_tokens,
        )


class OfflineEngine:
    """A loaded model in this process. `with` closes it. Not for two threads at once."""

    def __init__(self, config: EngineConfig, runner: Runner | None = None) -> None:
        self.runner = runner or loading.load(config)[0]
        self.scheduler = Scheduler.for_config(config, self.runner)
        self._serial = 0

    def __enter__(self) -> OfflineEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.runner.close()

    def generate(
        self, prompts: Iterable[Sequence[int]], params: SamplingParams | Sequence[SamplingParams]
    ) -> list[Completion]:
        """One completion per prompt, in order. `params` is for all prompts or one for each.

        Raises RequestRefused, before anything runs, if any of the prompts could not run.
        """
        lists = [list(prompt) for prompt in prompts]
        each = [params] * len(lists) if isinstance(params, SamplingParams) else list(params)
        for tokens, how in zip(lists, each, strict=True):
            refuse_impossible(tokens, how, self.scheduler.limits)
        names = [self._submit(tokens, how) for tokens, how in zip(lists, each, strict=True)]
        completions = dict.fromkeys(names, Completion())
        transcripts = Transcripts(self.scheduler, self.runner.piece)
        while plan := self.scheduler.schedule(time.monotonic()):
            try:
                drawn = self.runner.step(plan)
            except CellsExhausted:
                for ended in self.scheduler.retreat(plan):
                    completions[ended.request_id] = replace(
                        completions[ended.request_id], finish_reason="error"
                    )
                continue
            for delta in transcripts.deltas(self.scheduler.commit(plan, drawn, time.monotonic())):
                completions[delta.request_id] = completions[delta.request_id].extended(delta)
        return [completions[name] for name in names]

    def _submit(self, tokens: list[int], params: SamplingParams) -> str:
        self._serial += 1
        seed = secrets.randbits(63) if params.seed is None else params.seed
        name = str(self._serial)
        self.scheduler.submit(
            EngineSequence(
                request_id=name, tokens=tokens, params=params, seed=seed, order=(0.0, self._serial)
            )
        )
        return name


def generate(
    model_path: str | Path,
    prompts: Iterable[Sequence[int]],
    params: SamplingParams | Sequence[SamplingParams],
    **settings: Any,
) -> list[Completion]:
    """Load a model, complete every prompt (token ids), and close it again.

    `settings` are fields of `EngineConfig`. Raises a LabsupportError for a damaged model, an impossible
    setting or an impossible prompt.
    """
    config = msgspec.structs.replace(EngineConfig(model=str(model_path), spare_cores=0), **settings).checked()
    with OfflineEngine(config) as engine:
        return engine.generate(prompts, params)
