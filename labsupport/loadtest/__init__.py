"""A load on any server of OpenAI's protocol, and what its callers felt.

    from labsupport import loadtest

    prompts = loadtest.random_words(200, words=60, seed=1)
    result = loadtest.run(server.url, prompts, loadtest.Closed(clients=8), max_tokens=32)
    print(result)
    result.ttft.p95, result.output_tokens_per_second

`Closed(clients=8)` is eight callers who each wait for an answer before they ask again;
`Poisson(per_second=4)` and `Gamma(per_second=4, burstiness=0.5)` ask when it is time, whether anybody has
been answered or not.
Everything but the network (`client`) is pure: records go in, figures come out.
"""

from __future__ import annotations

from labsupport.loadtest.arrivals import Arrivals, Closed, Gamma, Poisson
from labsupport.loadtest.drive import arun, run
from labsupport.loadtest.prompts import Prompt, random_words
from labsupport.loadtest.record import Record
from labsupport.loadtest.report import Report
from labsupport.loadtest.slo import SLO
from labsupport.loadtest.statistics import Distribution

__all__ = [
    "SLO",
    "Arrivals",
    "Closed",
    "Distribution",
    "Gamma",
    "Poisson",
    "Prompt",
    "Record",
    "Report",
    "arun",
    "random_words",
    "run",
]
