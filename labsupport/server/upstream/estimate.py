"""How many tokens a request can use, where nobody here has the model's tokenizer.

Right means: near enough for a limit per minute, never taken for a count (the ledger and `/metrics` have only
what the upstream itself says), and cheap: it looks at how long a request is and not at every value in it.

A prompt is estimated by the length of its request, and `max_tokens` of each choice comes on top. So does
OpenAI: its guide "Rate limits" speaks of "the estimated number of tokens based on the character count of your
request", and its help page "What are tokens and how to count them?" of four characters to a token in English.
Bytes of UTF-8 stand for characters here, because other scripts have fewer characters to a token and more
bytes to a character. The names around the text count as well, for the marks that a chat template puts there.
`app.LARGEST_BODY_BYTES` bounds the length, and so the estimate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

BYTES_PER_TOKEN = 4
_MEDIA = frozenset({"image_url", "input_audio", "audio_url", "video_url", "file"})
"""Parts of a message whose bytes say nothing about their tokens; they are not estimated at all."""


def prompt_tokens(asked: Mapping[str, Any], *, sent_bytes: int) -> int:
    """An estimate for all prompts of a request whose body is so long; exact where they are token ids."""
    prompt = asked.get("prompt")
    if isinstance(prompt, list) and not isinstance(prompt[0], str):
        return len(prompt) if isinstance(prompt[0], int) else sum(map(len, prompt))
    text_bytes = max(sent_bytes - sum(_media_lengths(asked.get("messages") or [])), 0)
    return -(-text_bytes // BYTES_PER_TOKEN)


def _media_lengths(messages: list[dict[str, Any]]) -> Iterator[int]:
    """Of the addresses and data that make up the media in a conversation; base64 has a byte a character."""
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(kind := part.get("type"), str) and kind in _MEDIA:
                medium = part.get(kind)
                values = medium.values() if isinstance(medium, dict) else [medium]
                yield sum(len(value) for value in values if isinstance(value, str))
