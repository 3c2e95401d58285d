"""How many tokens a request can use, where nobody here has the model's tokenizer.

Right means: near enough for a limit per minute, and never taken for a count: the ledger and `/metrics` have
only what the upstream itself says. The prompt is estimated by its length, and `max_tokens` of each choice
comes on top. So does OpenAI: its guide "Rate limits" speaks of "the estimated number of tokens based on the
character count of your request", and its help page "What are tokens and how to count them?" of four
characters to a token in English. Bytes of UTF-8 stand for characters here, because other scripts have fewer
characters to a token and more bytes to a character.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BYTES_PER_TOKEN = 4
_READ_BY_THE_MODEL = (
    "prompt", "suffix", "messages", "tools", "functions", "response_format", "structured_outputs",
)  # fmt: skip
_MEDIA = frozenset({"image_url", "input_audio", "audio_url", "video_url", "file"})
"""Parts of a message whose bytes say nothing about their tokens; they are not estimated at all."""


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """An estimate for all prompts of a request, from its JSON."""
    length_bytes = 0
    unread = [body.get(name) for name in _READ_BY_THE_MODEL]
    while unread:  # no recursion: how deep it is nested is the client's choice
        match unread.pop():
            case str(text):
                length_bytes += len(text.encode("utf-8", "surrogatepass"))
            case list(values):
                unread += values
            case dict(fields) if fields.get("type") not in _MEDIA:
                unread += [*fields, *fields.values()]
            case int() | float():  # the id of a token, or a number in a schema
                length_bytes += BYTES_PER_TOKEN
    return -(-length_bytes // BYTES_PER_TOKEN)
