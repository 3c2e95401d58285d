"""From `response_format` to a grammar that the engine can be trusted with.

Right means: whatever schema comes in, the event loop goes on, other requests go on, and the engine sees only
grammars that a process of their own has survived. A schema costs that once: its verdict is remembered.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labsupport.engine.client import EngineClient
from labsupport.engine.grammars.json_schema import Schema, to_grammar
from labsupport.engine.grammars.schema_limits import SchemaRefused
from labsupport.engine.grammars.trial import GrammarRefused, Trial
from labsupport.server.errors import ApiError, bad_request
from labsupport.server.response_format import ResponseFormat

MOST_WAITING = 16
"""Schemas in hand at once; they are tried one after another, in a thread that does nothing else."""


class StructuredOutput:
    """Makes grammars of schemas, for one engine."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="schemas")
        self._waiting = 0
        self._trial: Trial | None = None

    async def grammar(self, form: ResponseFormat | None, engine: EngineClient) -> str:
        """The grammar of an answer in this form, "" for any text.

        Raises ApiError: 400 for a schema that no answer can be held to, and for an engine that can hold
        answers to none; 429 when too many schemas wait; 503 when trying them fails.
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
        if self._waiting >= MOST_WAITING:
            raise ApiError(
                429, f"{MOST_WAITING} schemas are being read.", code="too_many_schemas", retry_after_seconds=1
            )
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._tried, schema, Path(engine.config.model))
        except (SchemaRefused, GrammarRefused) as error:
            parts = (error.problem, error.allowed and f"Allowed: {error.allowed}", error.remedy)
            raise bad_request(
                " ".join(f"{part.rstrip('.')}." for part in parts if part),
                param="response_format",
                code="invalid_schema",
            ) from error
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the process in which grammars are tried. Safe to repeat."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._trial is not None:
            self._trial.close()

    def _tried(self, schema: Schema, model: Path) -> str:
        grammar = to_grammar(schema)
        if self._trial is None:
            self._trial = Trial(model)
        self._trial.refuse_harmful(grammar)
        return grammar
