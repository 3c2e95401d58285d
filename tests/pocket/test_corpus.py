"""The corpus is the same everywhere, keeps held-out content apart, and answers follow from prompts."""

from __future__ import annotations

import random
import re
import string
from decimal import Decimal

import pytest

from labsupport.errors import LabsupportError
from labsupport.pocket import (
    glossary,
    incident_causes,
    incident_phrases,
    incident_reports,
    names,
    value_lists,
    weight_sizes,
)
from labsupport.pocket.names import Unseen
from labsupport.pocket.sample import belongs
from labsupport.pocket.skills import SKILLS, samples
from labsupport.pocket.terms import TERMS

UNSEEN = Unseen(0.6, ordinary=0.5)
SPLITS = ("train", "heldout")
ENTRY = r"The key ([a-z]+-[a-z]+)(?![a-z]).*?(\d{4})\)?\."


@pytest.mark.parametrize("skill", SKILLS)
def test_the_same_seed_gives_the_same_samples_and_another_seed_others(skill: str) -> None:
    first = samples(skill, seed=3, count=50)
    assert samples(skill, seed=3, count=50) == first
    assert samples(skill, seed=4, count=50) != first
    assert samples(skill, seed=3, count=20) == first[:20]


@pytest.mark.parametrize("split", SPLITS)
def test_every_word_of_a_summary_stands_in_the_report(split: str) -> None:
    reports = samples("summarize", split=split, seed=0, count=400)
    if split == "train":
        rng = random.Random(0)
        reports += [incident_reports.short_note(rng, unseen=UNSEEN, variety=0.5) for _ in range(200)]
        reports += [incident_reports.sample(rng, split, unseen=UNSEEN, variety=0.9) for _ in range(400)]
    for sample in reports:
        framing = {"Service", "was", "for", "minutes", "because", "Because", "fix", "by"}
        words = set(re.findall(r"[\w.-]+\w", sample.answer)) - framing
        missing = [word for word in words if word not in sample.prompt]
        assert not missing, (missing, sample)
        assert "<" not in sample.prompt
        assert "{" not in sample.prompt


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("pairs", [2, 16, 64])
def test_a_list_holds_the_recalled_value_once_beside_its_key(split: str, pairs: int) -> None:
    lists = samples("recall", split=split, seed=0, count=30, pairs=pairs)
    if split == "train":
        rng = random.Random(0)
        lists += [
            value_lists.conversation(rng, split, pairs=pairs, questions=1, unseen=UNSEEN, variety=0.9)[0]
            for _ in range(100)
        ]
    for sample in lists:
        key, value = re.fullmatch(ENTRY, sample.answer).groups()
        rows = [line for line in sample.prompt.splitlines()[1:-1] if key in line]
        assert len(sample.prompt.splitlines()) == pairs + 2
        assert [re.findall(r"\d{4}", row) for row in rows] == [[value]]
        assert sample.answer.removeprefix("The key ").removesuffix(".") in rows[0]
        assert key in sample.prompt.splitlines()[-1]


@pytest.mark.parametrize("split", SPLITS)
def test_sizes_are_exact_to_the_last_digit(split: str) -> None:
    questions = samples("size", split=split, seed=0, count=500)
    if split == "train":
        questions += samples("size", split=split, seed=1, count=500, variety=0.9)
    for sample in questions:
        steps = re.findall(r"at (\d+) bits ([\d.]+) GB", sample.answer, re.IGNORECASE)
        billions = Decimal(steps[0][1])
        assert steps[0][0] == "8"
        assert re.search(rf"(?<![\d.]){re.escape(steps[0][1])}(?![\d])", sample.prompt)
        assert re.search(rf"(?<![\d.]){steps[-1][0]}(?![\d.]*\d)", sample.prompt)
        for bits, gigabytes in steps:
            assert Decimal(gigabytes) == billions * int(bits) / 8


def test_glossary_answers_are_definitions_of_a_term_that_the_question_names() -> None:
    definitions = {term.definition: term.phrase for term in TERMS}
    assert len(definitions) == len(TERMS) >= 40
    for phrasing in ("trained", "unseen"):
        for sample in samples("glossary", seed=0, count=300, phrasing=phrasing):
            bare = re.sub(r"^an? ", "", definitions[sample.answer]).lower()
            assert bare in sample.prompt.lower()


def _templates(split: str) -> list[str]:
    wordings = [
        value
        for name, value in vars(incident_phrases).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, dict)
    ]
    wordings += [
        value_lists._ENTRIES,
        value_lists._MARKS,
        value_lists._INTROS,
        value_lists._QUESTIONS,
        weight_sizes._QUESTIONS,
    ]
    return [text for wording in wordings for text in wording[split]]


def test_no_sentence_pattern_is_in_both_splits() -> None:
    assert len(set(_templates("train")) & set(_templates("heldout"))) == 0
    rng = random.Random(0)
    for kind, (wordings, _) in incident_reports._KINDS.items():
        put_together = {incident_reports._sentence(rng, "train", kind, 1.0) for _ in range(3000)}
        trained = [sentence.lower() for sentence in (*put_together, *wordings["train"])]
        for held_out in wordings["heldout"]:
            assert not any(held_out.lower().rstrip(".") in sentence for sentence in trained), held_out
    for part in (glossary._CORES, glossary._OPENINGS, glossary._CLOSINGS):
        assert set(part["trained"]) & set(part["unseen"]) <= {""}
    whole = {
        split: {f"{t} {f}" for family in families for t in family.things for f in family.faults}
        for split, families in incident_causes.FAMILIES.items()
    }
    assert not whole["train"] & whole["heldout"]


def test_a_sentence_that_chance_put_together_as_a_held_out_one_is_drawn_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wordings, _ = incident_reports._KINDS["opening"]
    drawn = iter((wordings["heldout"][0], wordings["heldout"][1], "Ever {s} was {i}."))
    monkeypatch.setitem(incident_reports._KINDS, "opening", (wordings, lambda rng: next(drawn)))
    assert incident_reports._sentence(random.Random(0), "train", "opening", 1.0) == "Ever {s} was {i}."
    wordings, _ = incident_reports._KINDS["remedy"]
    held_out = wordings["heldout"][0]
    longer = iter((f"Luckily, {held_out[0].lower()}{held_out[1:-1]}, of all people.", "Luckily {p} {f}."))
    monkeypatch.setitem(incident_reports._KINDS, "remedy", (wordings, lambda rng: next(longer)))
    assert incident_reports._sentence(random.Random(0), "train", "remedy", 1.0) == "Luckily {p} {f}."


def test_no_name_value_or_size_is_in_both_splits() -> None:
    def keys_and_values(split: str) -> tuple[set[str], set[str]]:
        answers = [s.answer for s in samples("recall", split=split, seed=1, count=2000, pairs=4)]
        found = [re.split(r"\W+", " ".join(re.fullmatch(ENTRY, answer).groups())) for answer in answers]
        return {word for row in found for word in row[:2]}, {row[2] for row in found}

    train_words, train_values = keys_and_values("train")
    held_words, held_values = keys_and_values("heldout")
    assert held_words
    assert not train_words & held_words
    assert not train_values & held_values

    train = {s.answer for s in samples("size", split="train", seed=1, count=4000)}
    assert not train & {s.answer for s in samples("size", split="heldout", seed=1, count=1000)}
    stems = {
        split: {
            s.answer.split()[1].split("-")[0] for s in samples("summarize", split=split, seed=1, count=2000)
        }
        for split in SPLITS
    }
    assert not stems["train"] & stems["heldout"]


def test_people_in_training_can_begin_with_a_vowel_and_are_never_held_out_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng, unseen = random.Random(5), Unseen(1.0, vowels=0.5)
    people = {names.person(rng, "train", unseen=unseen) for _ in range(2000)}
    assert {name[0] for name in people} >= set("AEIOU") | set("BCDFGKLMNPRST")
    # Ivan is held out, though the word that he is made of here is not
    made_up = iter(["livan", "louden"])
    monkeypatch.setattr(names, "made_up_word", lambda rng, split: next(made_up))
    assert belongs("livan", "train")
    assert belongs("ivan", "train")
    assert names.person(rng, "train", unseen=Unseen(1.0, vowels=1.0)) == "Ouden"


def test_about_one_name_in_eight_is_held_out() -> None:
    words = [a + b + c for a in string.ascii_lowercase for b in "aeiou" for c in string.ascii_lowercase]
    held = sum(belongs(word, "heldout") for word in words)
    assert 0.1 < held / len(words) < 0.15
    assert all(belongs(word, "train") != belongs(word, "heldout") for word in words)


def test_unknown_skills_splits_and_phrasings_are_refused_with_the_choices() -> None:
    with pytest.raises(LabsupportError, match="summarize, recall, glossary, size"):
        samples("translate", seed=0, count=1)
    with pytest.raises(LabsupportError, match="train, heldout"):
        samples("recall", split="test", seed=0, count=1)  # type: ignore[arg-type]
    with pytest.raises(LabsupportError, match="heldout unseen"):
        samples("glossary", split="train", seed=0, count=1, phrasing="unseen")


def test_cause_and_repair_can_speak_of_one_kind_of_thing_and_services_have_one_stem() -> None:
    rng = random.Random(8)
    services = re.compile(r"[a-z]+-(?:" + "|".join(names.WORDS["kinds"]) + r")\b")
    shared = compared = 0
    for _ in range(200):
        report = incident_reports.sample(rng, "train", unseen=UNSEEN, alike=1.0)
        service = report.answer.split()[1]
        cause, fix = report.answer.split(" because ")[1].split("; fix: ")
        shared += bool({*re.findall(r"\w+", cause)} & {*re.findall(r"\w+", fix)} & {*names.WORDS["nouns"]})
        others = set(services.findall(report.prompt)) - {service}
        compared += bool(others)
        assert not others or any(other.startswith(service.partition("-")[0]) for other in others), report
    assert shared > 100
    assert compared > 50
