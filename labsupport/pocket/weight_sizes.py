"""Skill `size`: how many GB (10⁹ bytes) the weights of an N-billion-parameter model take at k bits each.

The answer goes the way a person would: at 8 bits a weight is one byte, so N billion weights are N GB; then it
halves or doubles. Right means equal to N × k / 8, exactly, with every step.
"""

from __future__ import annotations

import random
from decimal import Decimal

from labsupport.pocket.sample import Sample, Split, Wordings, belongs
from labsupport.pocket.surroundings import lead, tail, words

BITS = (2, 4, 8, 16, 32)

_QUESTIONS: Wordings = {
    "train": (
        "How many GB are the weights of a {n}B model at {k} bits?",
        "How many GB do the weights of a {n}B model take at {k} bits?",
        "How large are the weights of a {n}B model in {k} bit?",
        "A model has {n} billion parameters of {k} bits each. How many GB is that?",
        "What do {n}B parameters weigh in GB at {k} bits per weight?",
        "Size of a {n}B model, {k}-bit weights?",
        "I want to run a {n}B model with {k}-bit weights. How many GB do I need for the weights?",
        "{n} billion weights, {k} bits each: how many GB?",
        "How big is the file of a {n}B model stored at {k} bits?",
        "At {k} bits, what is the size of a {n}B model?",
        "With {k} bits per weight, how many GB does a {n}B model have?",
        "Tell me the weight size of a {n}B model quantized to {k} bits.",
        "Our model has {n}B parameters. We keep it in {k} bits. How many GB?",
        "Please work out the GB for {n}B parameters at {k} bits.",
        "how much memory for the weights of a {n}b model in {k} bits",
        "Weights of a {n}-billion-parameter model at {k} bits: size in GB?",
        "What is the size in GB of {n}B weights at {k} bits each?",
        "If a model has {n}B parameters and I use {k} bits, how many GB is it?",
        "How many GB for {n}B parameters in {k}-bit?",
        "Compute the size of the weights: {n}B, {k} bits.",
        "{n}B at {k} bits?",
        "We got a {n}B model. It uses {k} bits per weight. How many GB are the weights?",
        "{k} bits per weight and {n} billion weights, how large is that?",
        "Suppose each of the {n} billion weights has {k} bits. How many GB?",
        "I store a {n}B model at {k} bits per weight. How big is it?",
        "Using {k} bits, how large is a {n}B model?",
    ),
    "heldout": (
        "What size in GB are the weights of a {n}B model when each has {k} bits?",
        "Someone gave us a {n}B model at {k} bits per weight. How large is it in GB?",
        "If I store {n} billion parameters at {k} bits each, how many GB is the file?",
        "Compute the GB of a {n}B model in {k}-bit weights.",
        "{k} bits, {n}B parameters: how many GB do the weights need?",
    ),
}


def answer(billions: Decimal, bits: int) -> str:
    """The steps from 8 bits to `bits`, each with its GB; exact decimal arithmetic."""
    steps = [8]
    while steps[-1] != bits:
        steps.append(steps[-1] // 2 if bits < 8 else steps[-1] * 2)
    parts = [f"at {step} bits {_plain(billions * step / 8)} GB" for step in steps]
    parts[-1] = parts[-1] if len(parts) == 1 else f"so {parts[-1]}"
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"


def _billions(rng: random.Random) -> Decimal:
    kind = rng.random()
    if kind < 0.35:
        return Decimal(rng.randrange(1, 100))
    if kind < 0.55:
        return Decimal(rng.randrange(100, 1000))
    return Decimal(rng.randrange(1, 1000)) / 10


def sample(rng: random.Random, split: Split, *, variety: float = 0.0) -> Sample:
    """One question about a size × bits pair of this split, in a wording of this split.

    For training, `variety` is the share of questions in which random words stand around the two numbers.
    """
    while True:
        billions, bits = _billions(rng), rng.choice(BITS)
        if belongs(f"{_plain(billions)}x{bits}", split):
            break
    template = rng.choice(_QUESTIONS[split])
    if variety and rng.random() < variety:
        template = _put_together(rng)
    question = template.format(n=_plain(billions), k=bits)
    return Sample("size", question, answer(billions, bits))


def _put_together(rng: random.Random) -> str:
    parts = [
        rng.choice(
            ("{n}B", "{n}B", "{n}b", "{n} billion", "a {n}B model", "{n}B parameters", "{n}B weights")
        ),
        rng.choice(("{k} bits", "{k} bits", "{k} bit", "{k}-bit", "{k}-bit weights", "{k} bits each")),
    ]
    rng.shuffle(parts)
    between = rng.choice((", ", ": ", " ", f" {words(rng, 1, 4)} ", f", {words(rng, 1, 3)} "))
    start = f"{lead(rng)} " if rng.random() < 0.6 else ""
    return f"{start}{between.join(parts)}{tail(rng)}{rng.choice('.??')}"
