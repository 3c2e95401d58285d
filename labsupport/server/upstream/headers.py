"""Which headers cross between a client and the upstream, either way: those listed here, and no other.

Right means: no key, cookie, address of a client or hop-by-hop header (`Connection`, `Transfer-Encoding`)
crosses, because everything that is not named here stays where it came from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

FORWARDED = ("x-request-id", "traceparent", "tracestate")
"""What of our client's the upstream sees: what ties the logs of both together."""
RETURNED = ("x-request-id",)
"""What of the upstream's our client sees; `Retry-After` is read, and written anew."""
LONGEST_CHARACTERS = 512


def crossing(headers: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Those of `names` that are there and that the other side can be sent."""
    values = {name: headers.get(name, "") for name in names}
    return {
        name: value
        for name, value in values.items()
        if 0 < len(value) <= LONGEST_CHARACTERS and value.isascii() and value.isprintable()
    }
