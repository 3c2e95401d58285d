"""From the moments at which tokens came to tokens a second.

Right means: the rate of decoding counts only while every sequence decodes, so it holds neither prefills nor a
batch that empties; and the rate of the whole run leaves nothing out.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from labsupport.errors import LabsupportError


def rates(began: float, times: Sequence[Sequence[float]]) -> dict[str, float]:
    """Tokens a second of one run. times: for each sequence, when each of its tokens was there, in seconds."""
    if not times or not all(times):
        raise LabsupportError("a sequence got no token, so there is no rate")
    begin, end = max(one[0] for one in times), min(one[-1] for one in times)
    last = max(one[-1] for one in times)
    found = {"whole_run_tokens_per_second": sum(map(len, times)) / (last - began)}
    if end > begin:
        decoded = sum(begin < moment <= end for one in times for moment in one)
        found["decode_tokens_per_second"] = decoded / (end - begin)
    return found


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each figure that every run has."""
    names = set.intersection(*(set(run) for run in runs))
    return {name: statistics.median(run[name] for run in runs) for name in sorted(names)}
