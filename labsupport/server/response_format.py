"""OpenAI's `response_format`: any text, any JSON object, or JSON that a schema accepts.

Names and ranges: OpenAI's API reference for chat completions. The completions route takes it too, as vLLM's
does. `strict` changes nothing: a schema is always held to, or refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from labsupport.engine.grammars.json_schema import ANY_OBJECT, Schema
from labsupport.server.errors import bad_request
from labsupport.server.fields import Strict


class NamedSchema(Strict):
    """A schema, what to call it, and what it is for."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    json_schema: Annotated[dict[str, Any] | bool, Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Strict):
    """What an answer has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _schema_where_there_is_one(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise bad_request(
                f"response_format of type {self.type} "
                + (
                    "has no json_schema." if self.type == "json_object" else "and its json_schema do not fit."
                ),
                param="response_format.json_schema",
                code="invalid_value",
            )
        return self

    @property
    def schema_to_follow(self) -> Schema | None:
        """The schema that the answer has to satisfy, or None."""
        if self.json_schema is not None:
            return self.json_schema.json_schema
        return ANY_OBJECT if self.type == "json_object" else None
