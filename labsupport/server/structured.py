"""From `response_format` to a grammar that the engine can be trusted with.

Right means: whatever schema comes in, the event loop goes on, other requests go on, and the engine sees only
grammars that a process of their own has survived. A schema costs that once: its verdict is remembered, and
one that is known, or too large to be read at all, waits for nobody. The others are read one after another,
each key's in its turn, so that a key that sends a hundred makes another wait for one. Ask within the limits
of the queue and of the key (`accounts`): reading a schema can cost more than the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labsupport.engine.client import EngineClient
from labsupport.engine.grammars.json_schema import Schema, to_grammar
from labsupport.engine.grammars.schema_limits import SchemaRefused, refuse_large
from labsupport.engine.grammars.trial import GrammarRefused, Trial
from labsupport.server.errors import ApiError, bad_request
from labsupport.server.response_format import ResponseFormat
from labsupport.server.turns import Turns
from labsupport.server.verdicts import Verdict, Verdicts, name_of

MOST_WAITING = 16
"""Schemas of one key that may be in hand at once and are not known."""


class StructuredOutput:
    """Makes grammars of schemas, for one engine."""

    def __init__(self) -> None:
        self._known = Verdicts()
        self._turns = Turns(1)
        self._waiting: Counter[str] = Counter()  # of each key that waits
        # One thread, which does nothing else. Who leaves cannot stop it: the next in turn waits for it.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="schemas")
        self._trial: Trial | None = None

    async def grammar(self, form: ResponseFormat | None, engine: EngineClient, *, key: str) -> str:
        """The grammar of an answer in this form, "" for any text.

        Raises ApiError: 400 for a schema that no answer can be held to, and for an engine that can hold
        answers to none; 429 when too many schemas of this key wait. Raises TrialUnavailable.
        """
        schema = form.schema_to_follow if form else None
        if form is None or schema is None:
            return ""
        if not engine.info.grammars:
            raise bad_request(
                f"response_format {form.type} is not supported by the {engine.info.engine} engine "
                "(allowed: text).",
                param="response_format",
                code="unsupported_parameter",
            )
        verdict = await self._verdict(schema, Path(engine.config.model), key)
        if verdict.refusal:
            raise bad_request(verdict.refusal, param="response_format", code="invalid_schema")
        return verdict.grammar

    def close(self) -> None:
        """End the process in which grammars are tried. Safe to repeat."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._trial is not None:
            self._trial.close()

    async def _verdict(self, schema: Schema, model: Path, key: str) -> Verdict:
        try:
            refuse_large(schema)
        except SchemaRefused as error:
            return Verdict(refusal=_words(error))
        name = name_of(schema)
        if known := self._known.get(name):
            return known
        with self._place(key):
            async with self._turns.hold(key):
                if known := self._known.get(name):  # it was the same schema that was waited for
                    return known
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._thread, self._tried, name, schema, model)

    @contextlib.contextmanager
    def _place(self, key: str) -> Iterator[None]:
        if self._waiting[key] >= MOST_WAITING:
            raise ApiError(
                429,
                f"{MOST_WAITING} other schemas of yours are being read.",
                code="too_many_schemas",
                retry_after_seconds=1,
            )
        self._waiting[key] += 1
        try:
            yield
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]

    def _tried(self, name: bytes, schema: Schema, model: Path) -> Verdict:
        """The verdict, which is kept even if nobody waits for it any more."""
        try:
            grammar = to_grammar(schema)
            if self._trial is None:
                self._trial = Trial(model)
            self._trial.refuse_harmful(grammar)
            verdict = Verdict(grammar=grammar)
        except (SchemaRefused, GrammarRefused) as error:
            verdict = Verdict(refusal=_words(error))
        self._known.keep(name, verdict)
        return verdict


def _words(error: SchemaRefused | GrammarRefused) -> str:
    parts = (error.problem, error.allowed and f"Allowed: {error.allowed}", error.remedy)
    return " ".join(f"{part.rstrip('.')}." for part in parts if part)
