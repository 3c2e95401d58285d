"""What an upstream's failures mean to our client.

Right means: the client learns whose fault it was (its own: 400, 413, 422; too much at once: 429; the
upstream's: 502, 503, 504) and the status that the upstream gave, and can act on it. The upstream's own words
are passed on only where they are about the request; the rest is for our log. A key is in neither.
"""

from __future__ import annotations

import email.utils
import json
import logging
import math
import time
from typing import Any

import httpx

from labsupport.server.errors import ApiError

LONGEST_MESSAGE_CHARACTERS = 500
LONGEST_RETRY_SECONDS = 24 * 3600

logger = logging.getLogger("labsupport.server")


class Refused(ApiError):
    """A failure before any work: the upstream was never reached, or says by its status that it began nothing.

    After any other failure nobody here knows what the upstream did, unless it says so.
    """


def from_status(status: int, body: bytes, *, key: str | None, retry_after: str = "") -> ApiError:
    """The error for an answer that is no 200. `retry_after` is the value of that header, if it came."""
    said = _error_object(body)
    words = _shown(said.get("message", said.get("detail")), key)
    if status in (401, 403):  # providers repeat parts of the key in these
        words = ""
    logger.warning("the upstream answered %d: %r", status, words)
    answered = f"The upstream answered {status}"
    seconds = retry_seconds(retry_after)
    kind = ApiError if may_have_worked(status) else Refused
    match status:
        case 400 | 413 | 422:
            return kind(
                status,
                f"{answered}: {words}" if words else f"{answered} and said no more.",
                param=_name(said.get("param"), key),
                code=_name(said.get("code"), key) or "upstream_refused",
            )
        case 429:
            return kind(
                429,
                f"{answered}: {words}" if words else f"{answered}: too many requests.",
                code="upstream_rate_limited",
                retry_after_seconds=seconds,
            )
        case 503 | 529:
            return kind(
                503,
                f"{answered}: it cannot take requests now.",
                code="upstream_overloaded",
                retry_after_seconds=seconds,
            )
        case 401 | 403:
            problem, code = "it does not accept the key that this server has for it", "upstream_refused_key"
        case 404 | 405:
            problem, code = "it does not have this route or this model", "upstream_not_found"
        case 408 | 504:
            return kind(504, f"{answered}: it took too long.", code="upstream_timeout")
        case _ if 300 <= status < 400:
            problem, code = "a redirect, which this server does not follow", "upstream_redirect"
        case _ if status < 500:
            problem, code = "which this server did not expect", "upstream_unexpected_status"
        case _:
            problem, code = "it failed", "upstream_failed"
    return kind(502, f"{answered}: {problem}.", code=code)


def may_have_worked(status: int) -> bool:
    """Whether an upstream that answers with this status may have run the model, and have its bill written.

    It may where it failed (500, 502), or took too long (504; and 408, which some gateways give for that). It
    did not where the request was at fault (4xx) or sent elsewhere (3xx), nor where it could not take it (503
    is "currently unable to handle the request", RFC 9110, section 15.6.4; 529 is a provider's own for that).
    """
    return not (300 <= status < 500 or status in (503, 529)) or status == 408


def from_event(event: dict[str, Any], *, key: str | None) -> ApiError | None:
    """The error that a 200 turned out to carry, in an object or flat; None if `event` is no error."""
    error = event if event.get("object") == "error" else event.get("error")
    if error is None:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return from_status(status, json.dumps(event).encode(), key=key)


def from_transport(error: httpx.RequestError, *, answer_began: bool) -> ApiError:
    """The error for an exchange that broke off: before the answer began or in its middle."""
    # The exception's text is left out: that of an illegal header repeats the header.
    logger.warning("the upstream could not be asked to the end: %s", type(error).__name__)
    when = "in the middle of its answer" if answer_began else "before it answered"
    match error:
        case httpx.ConnectTimeout() | httpx.ConnectError() | httpx.PoolTimeout() | httpx.ProxyError():
            return Refused(
                503, "The upstream cannot be reached.", code="upstream_unreachable", retry_after_seconds=1
            )
        case httpx.TimeoutException():
            return ApiError(504, f"The upstream fell silent {when}.", code="upstream_timeout")
        case _:
            return ApiError(502, f"The upstream broke off {when}.", code="upstream_disconnected")


def bad_answer(problem: str) -> ApiError:
    """The error for a 200 whose content is not what OpenAI's protocol says."""
    logger.warning("the upstream answered 200, but %s", problem)
    return ApiError(502, f"The upstream answered 200, but {problem}.", code="upstream_bad_answer")


def incomplete() -> ApiError:
    """The error for a stream that ended properly as HTTP goes, and too early as an answer."""
    logger.warning("the upstream ended a stream before its answer was complete")
    return ApiError(
        502, "The upstream ended its stream before the answer was complete.", code="upstream_disconnected"
    )


def retry_seconds(header: str) -> int:
    """`Retry-After`, in either of its forms, as whole seconds; 1 where it is absent or makes no sense."""
    if header.isascii() and header.isdigit():
        seconds = float(header[:9])
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            seconds = 1
    return max(1, min(math.ceil(seconds), LONGEST_RETRY_SECONDS))


def _error_object(body: bytes) -> dict[str, Any]:
    """The object with `message` in an error's body: OpenAI's, or flat; empty if it has neither form."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    said = parsed.get("error", parsed) if isinstance(parsed, dict) else {}
    return said if isinstance(said, dict) else {"message": said}


def _shown(said: object, key: str | None) -> str:
    """The upstream's own words, "" if there are none, without its key and no longer than a person reads."""
    words = said if isinstance(said, str) else ""
    if key:
        words = words.replace(key, "[key]")
    most = LONGEST_MESSAGE_CHARACTERS
    return words if len(words) <= most else f"{words[:most]}…"


def _name(said: object, key: str | None) -> str | None:
    """The name of a parameter or a code, if it is short enough to be one."""
    words = _shown(said, key)
    return words if 0 < len(words) <= 100 else None
