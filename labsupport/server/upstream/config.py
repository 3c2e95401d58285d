"""Where the upstream is, what it calls the model, the key that it wants, and which extensions it knows.

Right means: a key comes from a file or from the environment, never from the command line, where every user of
the computer could read it; and no message repeats one.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from labsupport.errors import LabsupportError

KEY_VARIABLE = "LABSUPPORT_UPSTREAM_KEY"
PRIORITY = "priority"
"""A field of vLLM's. Its `protocol.py` says that "any priority other than 0 will raise an error if the served
model does not use priority scheduling": it wants `vllm serve --scheduling-policy priority`."""
CONTINUOUS_USAGE = "continuous_usage_stats"
"""Of vLLM's `stream_options`: usage in every chunk, so that a stream which is left half-way can be billed."""
EXTENSIONS = (PRIORITY, CONTINUOUS_USAGE)
"""What this server sends of its own accord only to an upstream that is said to know it; others may refuse."""


class UpstreamRefused(LabsupportError):
    """A setting of the upstream that is impossible."""


@dataclass(frozen=True, kw_only=True)
class UpstreamConfig:
    """The upstream's settings; `checked()` before use.

    url: what OpenAI's clients call the base URL, up to and with `/v1`; a URL without a path gets that one.
    model: the model's name there.
    key: sent as a bearer token, if there is one.
    connections: how many requests are with the upstream at once; the others wait for their turn here.
    connect_seconds: how long to wait for a connection.
    silence_seconds: the longest pause in an answer, the one before its beginning included: an answer that is
        not streamed is all pause. Both limits are those of OpenAI's own client.
    knows: which of the EXTENSIONS it understands.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    connections: int = 16
    connect_seconds: float = 5.0
    silence_seconds: float = 600.0
    knows: frozenset[str] = frozenset()

    def checked(self) -> UpstreamConfig:
        """This configuration with its URL completed. Raises UpstreamRefused with what is wrong."""
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL:
            url = httpx.URL()
        # The URL is not repeated in these messages: what makes it wrong may be a password in it.
        if url.scheme not in ("http", "https") or not url.host:
            raise UpstreamRefused(
                "--upstream is no URL of a server", allowed="such as http://127.0.0.1:8001/v1"
            )
        if url.userinfo or url.query or url.fragment:
            raise UpstreamRefused(
                "--upstream has a user name, a query or a fragment, which could carry a secret into logs",
                allowed="scheme, host, port and path",
                remedy=f"put the key into a file for --upstream-key-file, or into {KEY_VARIABLE}",
            )
        if not self.model:
            raise UpstreamRefused("the model's name is empty", remedy="give --upstream-model NAME")
        if self.connections < 1:
            raise UpstreamRefused(f"slots is {self.connections}", allowed="1 or more")
        if not (math.isfinite(self.silence_seconds) and self.silence_seconds > 0):
            raise UpstreamRefused(f"--upstream-timeout is {self.silence_seconds}", allowed="seconds, above 0")
        if unknown := sorted(self.knows.difference(EXTENSIONS)):
            raise UpstreamRefused(
                f"--upstream-knows names {', '.join(map(repr, unknown))}", allowed=" or ".join(EXTENSIONS)
            )
        return replace(self, url=str(url.copy_with(path=url.path.rstrip("/") or "/v1")))


def read_names(text: str) -> frozenset[str]:
    """The names in a list with commas; spaces around them do not count, and "" has none."""
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def read_key(path: Path | None) -> str | None:
    """The upstream's key: the only line of a file, else the environment's, else none.

    Raises UpstreamRefused where there is something else.
    """
    text = os.environ.get(KEY_VARIABLE, "")
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UpstreamRefused(f"the upstream's key file {path} cannot be read: {error}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines and path is None:
        return None
    if len(lines) != 1:
        raise UpstreamRefused(f"{path or KEY_VARIABLE} holds {len(lines)} keys", allowed="one")
    [key] = lines
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UpstreamRefused(
            f"{path or KEY_VARIABLE} holds a key that is no header value",
            allowed="ASCII characters without spaces",
        )
    return key
