"""What each tenant has been served, so that whose turn it is does not depend on who asks most.

A tenant is an API key; requests without a key are one tenant together. Right means: between two tenants that
both have requests waiting, the service given differs by a bounded amount, however many requests either sends
and however long they are; nothing is saved up while a tenant asks for nothing; and no slot stays empty for
fairness' sake.

Source: the Virtual Token Counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024,
arXiv 2401.00588), with its prices and its lift; code of the authors: github.com/Ying1123/VTC-artifact,
`slora/server/router/vtc_req_queue.py`. Two things differ. Tokens of a shared prefix are free, for nothing is
computed for them. And the prompts that are computed in one step share its budget evenly between their
tenants, because here a prompt takes many steps: the paper's server computes it in one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

PROMPT_TOKEN_COST = 1
GENERATED_TOKEN_COST = 2
"""The prices of the authors' server: a generated token holds up the device longer than one of a prompt."""


class ServiceCounters:
    """Service given to each tenant, in prompt tokens' worth over its weight.

    weights: of tenants that are to get so many times the share of one that is not named here.
    """

    def __init__(self, weights: Mapping[str, int] | None = None) -> None:
        self._weights = dict(weights or {})
        self._served: dict[str, float] = {}
        self._last_to_leave = ""

    def of(self, tenant: str) -> float:
        return self._served.get(tenant, 0.0)

    def charge(self, tenant: str, *, prompt_tokens: int = 0, generated_tokens: int = 0) -> None:
        """Note that tokens were computed for a tenant."""
        cost = PROMPT_TOKEN_COST * prompt_tokens + GENERATED_TOKEN_COST * generated_tokens
        self._served[tenant] = self.of(tenant) + cost / self._weights.get(tenant, 1)

    def join(self, tenant: str, waiting: Collection[str]) -> None:
        """A tenant comes to have requests waiting, beside those of `waiting`.

        Its counter is lifted to the least of theirs, or to that of who waited last, so that it is owed
        nothing for the time when it asked for nothing.
        """
        least = min((self.of(other) for other in waiting), default=self.of(self._last_to_leave))
        self._served[tenant] = max(self.of(tenant), least)

    def leave(self, tenant: str) -> None:
        """A tenant has no request waiting any more."""
        self._last_to_leave = tenant


def split_budget(budget: int, wants: Sequence[tuple[str, int]]) -> list[int]:
    """How many of `budget` tokens each of several prompts gets in a step.

    wants: the tenant of each prompt and the tokens that it has left, first come first.

    Tenants share evenly, and what one does not need goes to the others (max-min fairness). Within a tenant,
    half is who came first's, so that it is done in a bounded time; the rest goes to whoever has least left,
    so that a short prompt does not stand behind a long one. With a budget of at least one token per tenant,
    each tenant gets some, and its first prompt does, so one that others wait for is never left standing.
    """
    wanted: dict[str, int] = {}
    for tenant, tokens in wants:
        wanted[tenant] = wanted.get(tenant, 0) + tokens
    left = {}
    for place, tenant in enumerate(sorted(wanted, key=wanted.__getitem__)):  # who wants least is served first
        left[tenant] = min(wanted[tenant], budget // (len(wanted) - place))
        budget -= left[tenant]
    shares = [0] * len(wants)
    firsts = {tenant: place for place, (tenant, _) in reversed(list(enumerate(wants)))}
    for tenant, place in firsts.items():
        shares[place] = min(wants[place][1], (left[tenant] + 1) // 2)
        left[tenant] -= shares[place]
    for place in sorted(range(len(wants)), key=lambda place: wants[place][1] - shares[place]):
        tenant, tokens = wants[place]
        more = min(tokens - shares[place], left[tenant])
        shares[place] += more
        left[tenant] -= more
    return shares
