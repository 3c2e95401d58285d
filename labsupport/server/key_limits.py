"""What one key may use in a minute and at once: requests, tokens and concurrent requests.

Right means: in no 60 s does a key get more than its limit, whatever the order of its requests; and who comes
again after the `Retry-After` of a 429 is let in, unless another request of the same key came first or used
more than was foreseen. (For the limit of concurrent requests that time is an estimate: nobody knows when an
answer ends. And a request is asked for twice: first, before its prompts are read, as if it used one token.)

Tokens are charged when a request is admitted, at the most that it can use: its prompts and `max_tokens` of
every choice. What it did not use comes back when it ends. Amazon Bedrock does so too, and advises to set
`max_tokens` for that reason (AWS's notes "Bedrock Quota Health Check"). The other way, to charge what was
used once it is known, lets through whatever arrives meanwhile: it "could allow token limits to be exceeded
temporarily when multiple requests are processed concurrently", says Azure API Management's page on its
`llm-token-limit` policy. A request counts in the minute in which it was admitted. One that was refused, by
whichever limit, counts nowhere.

In front of an upstream nobody here knows how long a prompt is, nor, without `max_tokens`, how long an answer
can be. There the charge is an estimate (`upstream.estimate`), made right in either direction once the
upstream says what was used: what a request used over its estimate, the next ones wait for, from
the moment when it is known: else an answer that takes over a minute would be free of the limit. Where the
upstream never says it, the estimate stays. A request without `max_tokens` holds all that its key has left for
a minute, or until it ends if that is sooner, so that no second one of the kind is let in meanwhile. So a
minute can bring more than the limit by what the estimates of the requests then in hand were short of.

All this is kept in the memory of one process, on the monotonic clock: it begins anew with the server.
Source of the headers: OpenAI's guide "Rate limits".
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from labsupport.server.errors import ApiError, bad_request
from labsupport.server.keys import Key
from labsupport.server.limits import Places

NANOSECONDS = 10**9
WINDOW_NANOSECONDS = 60 * NANOSECONDS
Clock = Callable[[], int]


@dataclass(eq=False)
class Charge:
    """An amount that a window holds since `at`, in nanoseconds of the window's clock."""

    at: int
    amount: int


class Window:
    """At most `limit` units in any 60 s: a charge made at t counts in [t, t + 60 s).

    Whole nanoseconds, so that what is let in after a wait is let in exactly then. It remembers every charge
    of the last minute, unlike a token bucket, which would need two numbers but lets through up to twice its
    limit in a minute: a full bucket at once, and what flows in meanwhile.
    """

    def __init__(self, limit: int, *, clock: Clock = time.monotonic_ns) -> None:
        self.limit = limit
        self._clock = clock
        self._charges: deque[Charge] = deque()
        self._taken = 0

    @property
    def remaining(self) -> int:
        """Units that can be taken now."""
        self._forget_old()
        return max(self.limit - self._taken, 0)

    @property
    def reset_nanoseconds(self) -> int:
        """Time until all of the limit can be taken, if nothing is meanwhile."""
        now = self._forget_old()
        held = [charge.at for charge in self._charges if charge.amount]
        return held[-1] + WINDOW_NANOSECONDS - now if held else 0

    def wait_nanoseconds(self, amount: int) -> int:
        """Time until `amount` can be taken, if nothing is taken or given back meanwhile.

        Raises ValueError if that is never, because it is over the limit by itself.
        """
        now = self._forget_old()
        lacking = self._taken + amount - self.limit
        if lacking <= 0:
            return 0
        for charge in self._charges:
            lacking -= charge.amount
            if lacking <= 0:
                return charge.at + WINDOW_NANOSECONDS - now
        raise ValueError(f"{amount} is over the limit of {self.limit}")

    def take(self, amount: int) -> Charge:
        """Charge `amount`, which `wait_nanoseconds` allows now."""
        charge = Charge(self._forget_old(), amount)
        self._charges.append(charge)
        self._taken += amount
        return charge

    def settle(self, charge: Charge, used: int) -> None:
        """Make a charge what was used, less or more.

        One that is older than the window counts no more; what was used over it counts from now.
        """
        if charge.at + WINDOW_NANOSECONDS > self._forget_old():
            self._taken += used - charge.amount
            charge.amount = used
        elif used > charge.amount:
            self.take(used - charge.amount)

    def _forget_old(self) -> int:
        now = self._clock()
        while self._charges and self._charges[0].at + WINDOW_NANOSECONDS <= now:
            self._taken -= self._charges.popleft().amount
        return now


class Grant:
    """What an admitted request holds of its key's limits.

    used_tokens: set it before the request ends; None is not known, and leaves the charge as it was made.
    """

    used_tokens: int | None = 0


class KeyLimiter:
    """The limits of one key, and what of them is used."""

    def __init__(self, key: Key, *, clock: Clock = time.monotonic_ns) -> None:
        self._name = key.name
        limits = key.limits
        self._requests = (
            Window(limits.requests_per_minute, clock=clock) if limits.requests_per_minute else None
        )
        self._tokens = Window(limits.tokens_per_minute, clock=clock) if limits.tokens_per_minute else None
        self._places = Places(limits.concurrent) if limits.concurrent else None

    def check(self, most_tokens: int = 1) -> None:
        """Raise ApiError 429, with the time to come again, if one that can use so many tokens cannot now."""
        waits = dict(self._waits(most_tokens))
        if waits:
            what, seconds = max(waits.items(), key=lambda wait: wait[1])
            raise ApiError(
                429,
                f"The limit of this key ({self._name}) is reached: {what}. Try again in {seconds} s.",
                code="rate_limit_exceeded",
                retry_after_seconds=seconds,
                headers=self.headers(),
            )

    @contextlib.contextmanager
    def admit(self, most_tokens: int, *, is_unbounded: bool = False) -> Iterator[Grant]:
        """Hold a request that can use `most_tokens` for the block; an unbounded one can use all that is left.

        Raises ApiError: 400 if it is over the limit by itself, 429 with the time to come again if not now.
        """
        if is_unbounded:  # it cannot use nothing, even if its prompt is empty
            most_tokens = max(most_tokens, 1)
        self._refuse_larger_than_the_limit(most_tokens)
        self.check(most_tokens)
        grant = Grant()
        charge = None
        if self._tokens:
            charge = self._tokens.take(max(most_tokens, self._tokens.remaining if is_unbounded else 0))
        if self._requests:
            self._requests.take(1)
        try:
            with self._places.hold(1) if self._places else contextlib.nullcontext():
                yield grant
        finally:
            if self._tokens and charge and grant.used_tokens is not None:
                self._tokens.settle(charge, grant.used_tokens)

    def headers(self) -> dict[str, str]:
        """OpenAI's `x-ratelimit-*` headers, of the limits that this key has."""
        found = {}
        for unit, window in (("requests", self._requests), ("tokens", self._tokens)):
            if window:
                found[f"x-ratelimit-limit-{unit}"] = str(window.limit)
                found[f"x-ratelimit-remaining-{unit}"] = str(window.remaining)
                found[f"x-ratelimit-reset-{unit}"] = duration(window.reset_nanoseconds)
        return found

    def _refuse_larger_than_the_limit(self, most_tokens: int) -> None:
        if self._tokens and most_tokens > self._tokens.limit:
            raise bad_request(
                f"This request can use {most_tokens} tokens, prompts and completions together; this key "
                f"({self._name}) has {self._tokens.limit} a minute. Ask for fewer with max_tokens.",
                param="max_tokens",
                code="tokens_per_minute_too_low",
            )

    def _waits(self, most_tokens: int) -> Iterator[tuple[str, int]]:
        """Each limit that stands in the way, with the whole seconds until it does not."""
        if self._places and (lacking := self._places.lacking(1)):
            yield f"{self._places.limit} concurrent requests", self._places.seconds_until_free(lacking)
        if self._requests and (wait := self._requests.wait_nanoseconds(1)):
            yield f"{self._requests.limit} requests a minute", -(-wait // NANOSECONDS)
        if self._tokens and (wait := self._tokens.wait_nanoseconds(most_tokens)):
            what = (
                f"{self._tokens.limit} tokens a minute, of which {self._tokens.remaining} are left and this "
                f"request can use {most_tokens}"
            )
            yield what, -(-wait // NANOSECONDS)


class KeyLimits:
    """The limiters of all keys that have limits."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._limiters = {key.name: KeyLimiter(key) for key in keys}

    def admit(
        self, name: str, most_tokens: int, *, is_unbounded: bool = False
    ) -> contextlib.AbstractContextManager[Grant]:
        """As `KeyLimiter.admit`; a name that is not a key's (nobody asks for keys) has no limits."""
        if limiter := self._limiters.get(name):
            return limiter.admit(most_tokens, is_unbounded=is_unbounded)
        return contextlib.nullcontext(Grant())

    def check(self, name: str) -> None:
        """As `KeyLimiter.check`, for the least that a request can use: nobody has counted its tokens yet."""
        if limiter := self._limiters.get(name):
            limiter.check()

    def headers(self, name: str) -> dict[str, str]:
        """As `KeyLimiter.headers`."""
        limiter = self._limiters.get(name)
        return limiter.headers() if limiter else {}


def duration(nanoseconds: int) -> str:
    """As OpenAI writes it, "6m0s" or "1.5s", rounded up to a millisecond."""
    minutes, milliseconds = divmod(-(-nanoseconds // 10**6), 60_000)
    seconds = f"{milliseconds / 1000:g}s"
    return f"{minutes}m{seconds}" if minutes else seconds
