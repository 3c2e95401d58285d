"""A grammar that harms llama.cpp does so in a process of its own, is refused, and the next one is tried."""

from __future__ import annotations

import pytest

from labsupport.engine.grammars import trial as trial_module
from labsupport.engine.grammars.json_schema import to_grammar
from labsupport.engine.grammars.trial import GrammarRefused, Trial, TrialUnavailable

GOOD = to_grammar({"type": "object", "properties": {"a": {"type": "string"}}})

HARMFUL = {
    "unreadable": "root ::= (",
    "no root": 'start ::= "a"',
    "left recursion": 'root ::= root "a" | "b"',
    "hidden left recursion": 'root ::= empty root "a" | "b"\nempty ::= less\nless ::= "x" | ""',
    "sixty thousand brackets": "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000,
    "a chain of rules": "root ::= r0\n"
    + "\n".join(f"r{place} ::= r{place + 1}" for place in range(200_000))
    + '\nr200000 ::= "a"',
    "alternatives of alternatives": "root ::= r0\n"
    + "\n".join(f"r{place} ::= r{place + 1} | r{place + 1}" for place in range(40))
    + '\nr40 ::= "a"',
}


@pytest.fixture
def trial(tiny_model):
    trial = Trial(tiny_model)
    yield trial
    trial.close()


def test_what_harms_is_refused_and_what_does_not_is_taken_before_and_after(trial, monkeypatch):
    monkeypatch.setattr(trial_module, "ANSWER_WITHIN_SECONDS", 300.0)  # a busy machine
    trial.refuse_harmful(GOOD)
    for grammar in HARMFUL.values():
        with pytest.raises(GrammarRefused, match=r"grammar|spell"):
            trial.refuse_harmful(grammar)
    trial.refuse_harmful(GOOD.replace("colon", "other"))


def test_the_process_is_gone_once_it_is_closed(trial):
    trial.refuse_harmful(GOOD)
    process = trial._process
    trial.close()
    trial.close()
    assert process.poll() is not None


def test_a_process_that_somebody_else_kills_says_nothing_of_the_grammar(trial, monkeypatch):
    trial.refuse_harmful(GOOD)
    process = trial._process
    monkeypatch.setattr(trial_module.json, "dumps", lambda text: process.kill() or f'"{text!r}"')

    with pytest.raises(TrialUnavailable, match="was killed"):
        trial.refuse_harmful(GOOD)

    monkeypatch.undo()
    trial.refuse_harmful(GOOD)
