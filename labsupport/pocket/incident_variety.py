"""Training sentences put together from parts, so that no fixed words around a fact can be learned by heart.

A model that has seen twenty ways to name the service in trouble looks for those words, not for the service. A
few hundred, put together from a lead and a tail, leave it nothing to look for but the meaning. None of these
sentences is one of the held-out ones.
"""

from __future__ import annotations

import random

_LEADS = """
On Monday|On Tuesday|On Friday|Just now|At noon|All afternoon|All night|Before lunch|After lunch|
Since the deploy|During the release|An hour ago|Once more|Suddenly|Again|For some reason|My|Their|Your|
The old|The poor|Poor|Good old|Only|Even|First|Meanwhile|It seems|They say|I noticed|We noticed that|
People said that|The pager says|Word came in that|Somebody saw that|The tests found that|The alert said|
A client writes that|Chat says|News of the day:|Bad luck:|Today|Last Sunday|At dawn|In the evening|
Right after the standup|While I slept|Out of nowhere|As so often|No joke,|Well,|Oh no,|From the log:|
Short report:|Page of the night:|Trouble again:|While we were at dinner,|Somewhere past <clock>|
Near <clock>
"""
_TAILS = """
|today|again|this week|for a while|once more|now|of all things|as before|for everybody|for some users|here
"""
_WATCHERS = (
    "The probe|The checker|Our graphs|The board|The monitor|The robot|Status page|The on-call tool|Traces"
)
_WATCHED = "flagged|showed|marked|listed|saw|found|noted|logged|had"
_WHENS = "today|on Monday|once again|now|yesterday|as usual|last night|at <clock>|for a change"
_CAUSE_LEADS = """
Because|The thing is that|The problem was that|We learned that|Explanation:|Background:|The story:|
Short version:|I think|It seems|Turns out|Found it:|My guess:|Simple reason:|The reason was this:|
According to the trace,|Everybody forgot that|It started when|This began when|It began because|
What happened:|Behind it:|The reason behind it was that|I found that|The trace told me that|
Somebody told me that|The audit log has it:|So the reason was:|What we missed:|Diagnosis:|Why:
"""
_REMEDY_LEADS = """
Until|Once|Happily|Soon|At last|Eventually|We were back when|Green again since|It ended when|
All good after|It got better when|Hero of the day:|Who fixed it?|Good news:|An hour later|In the morning|
At <clock>|What we did:|Quick fix:|Solution:|It cleared up when|The errors ended as soon as|
Relief came when|To end it,|Later|Action taken:|Repair:|The mending:|Nice:|We could sleep again after|
It stopped when|The page closed after|Our hero:
"""
_REMEDY_TAILS = """
|and it was over|and that was it|and it went away|, problem solved|and the graphs calmed down|
and all is well|, so we are back|and the page closed|and traffic came back|, which did it|. That did it|
and peace returned|and we could sleep
"""


def _one_of(rng: random.Random, parts: str) -> str:
    return rng.choice([part.strip() for part in parts.split("|")])


def opening(rng: random.Random, *, with_length: bool) -> str:
    """Which service ({s}) was what ({i}), perhaps for how many minutes ({m})."""
    length = " for {m} minutes" if with_length else ""
    kind = rng.random()
    if kind < 0.15:
        return f"{_one_of(rng, _WATCHERS)} {_one_of(rng, _WATCHED)} {{s}} as {{i}}{length}."
    if kind < 0.3:
        return f"It {rng.choice(('is', 'was'))} {{s}} {_one_of(rng, _WHENS)}, it was {{i}}{length}."
    verb = rng.choice(("was", "was", "was", "is", "has been"))
    return f"{_one_of(rng, _LEADS)} {{s}} {verb} {{i}}{length} {_one_of(rng, _TAILS)}".rstrip() + "."


def cause(rng: random.Random) -> str:
    """Why ({c})."""
    return f"{_one_of(rng, _CAUSE_LEADS)} {{c}}."


def remedy(rng: random.Random) -> str:
    """Who ({p}) did what ({f}) that helped."""
    tail = _one_of(rng, _REMEDY_TAILS)
    space = "" if tail[:1] in ("", ",", ".") else " "
    return f"{_one_of(rng, _REMEDY_LEADS)} {{p}} {{f}}{space}{tail}."
