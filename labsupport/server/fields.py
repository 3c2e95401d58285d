"""What fields of a request's body can be, whichever request it is: texts, token ids, limits, and how many.

Right means: nothing is coerced, and a body of megabytes is refused at its first mistake, or by the number of
its parts, before each of a million is described at length.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from labsupport.engine.validation import MOST_BIASED_TOKENS
from labsupport.server.errors import bad_request

MOST_FIELDS = 64
"""In one JSON object; a body could bring a million unknown ones, and each would be a mistake to describe."""
MOST_PROMPTS = 1024
"""In one completion request; how many may be in hand is for the queue to say, and is mostly less."""


def _utf8(text: str) -> str:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("Text should be Unicode without lone surrogates")
    return text


def not_crowded(given: Any) -> Any:
    """Raise ApiError 400 for an object of too many fields."""
    if isinstance(given, dict) and len(given) > MOST_FIELDS:
        raise bad_request(
            f"An object of the body has {len(given)} fields; at most {MOST_FIELDS} are read.",
            code="invalid_value",
        )
    return given


def few_biases(given: Any) -> Any:
    """Raise ApiError 400 for a `logit_bias` of too many tokens."""
    if isinstance(given, dict) and len(given) > MOST_BIASED_TOKENS:
        raise bad_request(
            f"`logit_bias` has {len(given)} tokens; at most {MOST_BIASED_TOKENS} are read.",
            param="logit_bias",
            code="invalid_value",
        )
    return given


def few_prompts(given: Any) -> Any:
    """Raise ApiError 400 for a list of too many prompts."""
    if isinstance(given, list) and len(given) > MOST_PROMPTS and not isinstance(given[0], int):
        raise bad_request(
            f"There are {len(given)} prompts in one request; at most {MOST_PROMPTS} are read.",
            param="prompt",
            code="too_many_sequences",
        )
    return given


Text = Annotated[str, AfterValidator(_utf8)]
StopString = Annotated[Text, Field(min_length=1, max_length=256)]
TokenLimit = Annotated[int, Field(ge=1, le=2**31 - 1)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, fail_fast=True)]
# Every list ends at its first mistake: a body of megabytes has room for millions, each described at length.
TokenIdText = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")]
"""A key of `logit_bias`: JSON's keys are strings."""


class Strict(BaseModel):
    """No coercion ("5" is no number), no unknown fields, no NaN, no change after validation."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _fields_are_few(cls, given: Any) -> Any:
        return not_crowded(given)
