"""How much of the pocket model's score could be memory? Against all the text that its training showed it.

The training text is made again, step by step, from the seed of the training. So nothing is compared with a
stand-in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labsupport.evaluation.exact_match import exact_match
from labsupport.evaluation.memory import nearest_answers, shared_ngrams
from labsupport.pocket.curriculum import Curriculum
from labsupport.pocket.report import EXERCISES
from labsupport.pocket.skills import samples as draw
from labsupport.pocket.tokenizer import SPECIAL_TOKENS

NEIGHBOURS = 5_000


def training_texts(curriculum: Curriculum, *, steps: int, seed: int, tokenizer: Any) -> Iterator[str]:
    """The messages that training showed the model, with no tokens of the chat format in them."""
    for step in range(steps):
        for row in curriculum.rows(step, seed=seed, tokenizer=tokenizer):
            text = tokenizer.decode(row.tokens, skip_special_tokens=False)
            for mark in SPECIAL_TOKENS:
                text = text.replace(mark, "\x00")
            yield from text.split("\x00")


def memory_check(
    curriculum: Curriculum, *, steps: int, training_seed: int, tokenizer: Any, seed: int, samples: int
) -> dict[str, dict[str, float]]:
    """Per exercise: 8-gram overlap of held-out prompts, and the nearest neighbour's exact match.

    The neighbour is the training prompt most like the held-out one, among 5,000 of the same skill; its
    answer is judged as if a model had given it.
    """
    drawn = {exercise.name: exercise.samples(seed=seed, count=samples) for exercise in EXERCISES}
    prompts = {name: [sample.prompt for sample in some] for name, some in drawn.items()}
    training = list(training_texts(curriculum, steps=steps, seed=training_seed, tokenizer=tokenizer))
    found = {}
    for exercise in EXERCISES:
        options = {"pairs": exercise.options["pairs"]} if exercise.skill == "recall" else {}
        known = draw(exercise.skill, split="train", seed=training_seed, count=NEIGHBOURS, **options)
        expected = [sample.answer for sample in drawn[exercise.name]]
        nearest = exact_match(
            lambda asked, known=known: nearest_answers(  # type: ignore[misc]
                asked, [sample.prompt for sample in known], [sample.answer for sample in known]
            ),
            prompts[exercise.name],
            expected,
        )
        found[exercise.name] = {
            "prompt_8gram_overlap": round(shared_ngrams(prompts[exercise.name], training), 4),
            "nearest_neighbour": nearest.share,
        }
    return found
