"""Training sentences put together from parts and random words: see `surroundings` for the reason.

What tells a fact is what stands close behind or within it: a service is what was in trouble, a length has
minutes, who fixed it did something that was not in vain. None of these sentences is a held-out one.
"""

from __future__ import annotations

import random

from labsupport.pocket.names import WORDS
from labsupport.pocket.surroundings import lead, tail, with_other_words, words


def _phrases(text: str) -> list[str]:
    return text.split("|")


_IN_VAIN = _phrases(
    ", in vain|, without effect|, to no avail|, which changed nothing| but nothing changed|, wrong idea|"
    ", but the errors stayed|, that was not it|, and it stayed as it was|, no change|, no luck|"
    ", which made it worse| for nothing"
)
_NO_CULPRIT = _phrases(
    ", wrong track| for a while, wrongly|, but it was innocent|, but no|, which was wrong|"
    ", but it was healthy"
)
_SUSPECTED = _phrases("suspected|blamed|looked at|thought of|checked|believed in|guessed at|asked about")
_WENT_ON = _phrases(
    "was not part of this|stayed up|went on|looked good|was healthy|had no errors|did its work|"
    "was never at risk|saw nothing of it|ran as usual|retried <number> times"
)
_TOLD = _phrases(
    "told|called|asked|wrote to|thanked|mailed|met|answered|texted|warned|woke|invited|will tell|"
    "will call|will ask|is telling|has to tell|has told"
)
_TOLD_WHOM = _phrases(
    "the customers|support|everybody|the team|my boss|sales|the users|legal|us all|the night shift|<person>"
)
_COUNTED = _phrases("ms|users|customers|percent|seconds|requests|errors|calls|tickets|GB|pods|hosts|times")
_LISTED = _phrases(
    "listed|mended|cured|solved|settled|flagged|marked|logged|named|noted|counted|paged|showed|described|recorded"
)
_VERBS_OF_CAUSES = _phrases("is this|was that|turned out to be|was found|was plain|is known|here|is")
_VERBS = _phrases(" was| was| was| was| was| was| is| is now| has been| got| went| stayed| became|:|:||")
_OTHER_VERBS = _phrases(
    " had been| has been| is being| kept being| ended up| went| turned| stayed| remained| looked| seemed|"
    " appeared| came back| came up| would be| came out| sat there| was left| was found| was seen| felt| lay|"
    " was reported| was reported as| was marked| was called| showed as| showed up as| was once more| must be|"
    " was again| was suddenly| was simply| was already|, which was|, now|, then|, still| -| --|:| =| =>| (|"
    " became| grew| got| proved| proved to be| turned out to be| turned out| was down as| started being|"
    " began to be| could be seen| stood there| was only|, it seems,|, once again| itself was| alone was"
)
_BACKWARDS = _phrases(
    " was| is|:|,| -| is what we called| is how we found| is what I saw of| describes| was the state of|"
    ", that was|, and that was| again, this time| and it is| at the time was| went"
)
_FOR_MINUTES = _phrases(
    " for {m} minutes| for {m} minutes| for {m} minutes| for {m} minutes| for {m} minutes|"
    " for {m} minutes|, {m} minutes|; {m} minutes|, in all {m} minutes| for {m} min|, {m} min"
)


def estranged(rng: random.Random, sentence: str) -> str:
    """A listed sentence made stranger: another verb between service and impact, other words."""
    if rng.random() < 0.4:
        verb = rng.choice(_OTHER_VERBS)
        if rng.random() < 0.2:
            verb = f" {words(rng, 1, 2)}{rng.choice((' was', ' was', ' is', ':', ' -', ''))}"
        sentence = sentence.replace("{s} was {i}", f"{{s}}{verb} {{i}}")
    return with_other_words(rng, sentence) if rng.random() < 0.3 else sentence


def opening(rng: random.Random, length: str = "") -> str:
    """Which service ({s}) was what ({i})."""
    chance = rng.random()
    if chance < 0.25:
        listed = f" {rng.choice(_LISTED)}" if rng.random() < 0.5 else ""
        return f"{lead(rng)}{listed} {{s}} as {{i}}{length}{tail(rng)}."
    if chance < 0.35:
        return f"{lead(rng)} {{i}}{rng.choice(_BACKWARDS)} {{s}}{length}{tail(rng)}."
    if chance < 0.45:
        when = words(rng, 1, 2)
        return f"{lead(rng)} {{s}} {when}, it {rng.choice(('is', 'was'))} {{i}}{length}{tail(rng)}."
    verb = rng.choice(_VERBS)
    return f"{lead(rng)} {{s}}{verb} {{i}}{length}{tail(rng)}."


def opening_with_length(rng: random.Random) -> str:
    """Which service ({s}) was what ({i}) for how many minutes ({m})."""
    if rng.random() < 0.25:
        return f"{{m}} minutes {words(rng, 1, 3)}{rng.choice((':', ',', ''))} {{s}} was {{i}}{tail(rng)}."
    return opening(rng, rng.choice(_FOR_MINUTES))


def length(rng: random.Random) -> str:
    """For how many minutes ({m})."""
    start = f"{lead(rng)} " if rng.random() < 0.8 else ""
    return f"{start}{{m}} {rng.choice(('minutes', 'minutes', 'min'))}{tail(rng)}."


def cause(rng: random.Random) -> str:
    """Why ({c})."""
    start = lead(rng)
    if rng.random() < 0.3:
        start += f" the {rng.choice(WORDS['nouns'])} {rng.choice(_VERBS_OF_CAUSES)}"
    if start[-1].isalpha() and rng.random() < 0.7:
        start += rng.choice((":", ":", ",", " that", " that", " because"))
    return f"{start} {{c}}."


def remedy(rng: random.Random) -> str:
    """Who ({p}) did what ({f}) that helped."""
    start = f"{lead(rng)} " if rng.random() < 0.75 else ""
    if rng.random() < 0.45:
        was = rng.choice(("it was", "this was", "we were", "that got"))
        start = start + was if start and rng.random() < 0.5 else was.capitalize()
        done = rng.choice(_LISTED if rng.random() < 0.5 else WORDS["mended"])
        start += f" {done} {rng.choice(('when', 'once', 'as', 'after', 'because', 'since'))} "
    return f"{start}{{p}} {{f}}{tail(rng)}."


def attempt(rng: random.Random) -> str:
    """Who did what in vain, or what was suspected wrongly."""
    start = f"{lead(rng)} " if rng.random() < 0.7 else ""
    if rng.random() < 0.4:
        return f"{start}we {rng.choice(_SUSPECTED)} <service>{rng.choice(_NO_CULPRIT)}."
    tried = "{other_fix}"
    if rng.random() < 0.5:
        tried = f"{rng.choice(('tried', 'tried to', 'wanted to', words(rng, 1, 2)))} {words(rng, 1, 3)}"
    return f"{start}<person> {tried}{rng.choice(_IN_VAIN)}."


def _about_somebody(rng: random.Random) -> str:
    """Somebody who mended nothing: as who did something else, or to whom something was done."""
    behind = f" {words(rng, 1, 3)}" if rng.random() < 0.5 else rng.choice(("", "", " at <clock>"))
    chance = rng.random()
    if chance < 0.35:
        return f"<person> {rng.choice(_TOLD)} {rng.choice(_TOLD_WHOM)}{behind}"
    if chance < 0.65:
        who = rng.choice(("I", "I", "we", "we", "they", "somebody", words(rng, 1, 2)))
        between = f"{words(rng, 1, 2)} " if rng.random() < 0.5 else ""
        return f"{who} {between}{rng.choice(_TOLD)} <person>{behind}"
    return f"<person> {words(rng, 1, 4)}{behind}"


def noise(rng: random.Random) -> str:
    """What does not belong in a summary: other services, other people, other numbers."""
    start = f"{lead(rng)} " if rng.random() < 0.5 else ""
    chance = rng.random()
    if chance < 0.2:
        return f"{start}<service> {rng.choice(_WENT_ON)}."
    if chance < 0.7:
        return f"{start}{_about_somebody(rng)}."
    if chance < 0.9:
        return f"{start}<number> {rng.choice(_COUNTED)}{tail(rng)}."
    return f"{lead(rng)}{tail(rng)}."
