"""The ledger's checker is itself tested by breaking each of its rules once."""

from __future__ import annotations

import pytest

from labsupport.notebook.claim_text import prose, quantities, unlinked
from labsupport.notebook.claims import LedgerError, ledger_page, main, problems, read_ledger

LEDGER = """
[bf16-bits]
says = "bfloat16 stores a number in 16 bits."
value = 16
unit = "bits"
check = "anatomy.formats.format_named('bf16').bits_per_weight"

[llama-users]
says = "Above this many monthly active users, Llama 3.1 needs a licence of its own."
value = 700
unit = "million monthly active users"
[llama-users.source]
title = "Llama 3.1 Community License"
publisher = "Meta"
url = "https://example.org/LICENSE"
read = 2026-11-20
quotation = "is greater than 700 million monthly active users in the preceding calendar month"

[licence]
says = "gpt-oss is under the Apache licence, version 2.0."
value = "Apache 2.0"
[licence.source]
title = "README"
publisher = "OpenAI"
url = "https://example.org/"
read = 2026-11-20
quotation = "Permissive Apache 2.0 license"

[gpu-memory]
says = "That GPU has 80 GB."
value = 80
unit = "GB"
kind = "spec"
[gpu-memory.source]
title = "Sheet"
publisher = "Maker"
url = "https://example.org/sheet"
read = 2026-11-19
as_of = 2026-11-18
quotation = "GPU memory 80GB"
"""
LESSON = """# ---
# jupyter: {}
# ---
# %% [markdown]
# # A lesson
#
# **Time:** 40 minutes
#
# A number takes [16 bits](CLAIMS.md#bf16-bits); the limit is [700 million](CLAIMS.md#llama-users), under
# [Apache 2.0](CLAIMS.md#licence), on [an 80 GB card](CLAIMS.md#gpu-memory). See [the docs](https://example.org/8-bits).
#
# ```
# 12 GB in code are no statement, nor is `7 GB` in a line of it.
# ```
#
# Given: a model of 7 billion parameters, at 4 bits each.

# %%
print("9 GB")
"""
QUESTIONS = """
[length]
question = "How long is a number?"
[[length.options]]
text = "two"
right = true
because = "It has [16 bits](CLAIMS.md#bf16-bits), and no more."
[[length.options]]
text = "sixteen"
because = "Sixteen is the number of bits."
"""


@pytest.fixture
def course(tmp_path):
    """A folder with one ledger and one lesson, without any problem."""
    (tmp_path / "src").mkdir()

    def write(ledger=LEDGER, lesson=LESSON, questions=QUESTIONS):
        (tmp_path / "claims.toml").write_text(ledger)
        (tmp_path / "src" / "00_lesson.py").write_text(lesson)
        (tmp_path / "questions.toml").write_text(questions)
        return tmp_path

    return write


def only_problem(folder) -> str:
    (problem,) = problems(folder)
    return str(problem)


def test_a_true_and_fully_linked_lesson_has_no_problem(course):
    assert problems(course()) == []


def test_a_link_without_a_claim_is_found(course):
    lesson = LESSON.replace("See [the docs]", "See [9 bits](CLAIMS.md#nine). [the docs]")
    assert "links to 'nine', which claims.toml does not have" in only_problem(course(lesson=lesson))


def test_the_line_of_the_passage_is_named(course):
    lesson = LESSON.replace("See [the docs]", "See [9 bits](CLAIMS.md#nine). [the docs]")
    assert only_problem(course(lesson=lesson)).startswith("00_lesson.py:5:")


def test_a_claim_that_no_lesson_uses_is_found(course):
    lesson = LESSON.replace("[700 million](CLAIMS.md#llama-users)", "high")
    assert "[llama-users]: no lesson uses this claim" in only_problem(course(lesson=lesson))


def test_a_value_that_differs_from_its_check_is_found(course):
    ledger = LEDGER.replace("'bf16'", "'f32'")
    assert "[bf16-bits]: the check gives 32, the ledger says 16" in only_problem(course(ledger=ledger))


@pytest.mark.parametrize(
    "check", ["1 / 0", "anatomy.no_such", "nowhere.x", "__import__('os')", "syntax error"]
)
def test_a_check_that_cannot_be_evaluated_is_found(course, check):
    ledger = LEDGER.replace("anatomy.formats.format_named('bf16').bits_per_weight", check)
    assert "the check failed" in only_problem(course(ledger=ledger))


def test_a_value_that_differs_from_the_prose_is_found(course):
    lesson = LESSON.replace("[16 bits](CLAIMS.md#bf16-bits);", "[17 bits](CLAIMS.md#bf16-bits);")
    assert "[17 bits] does not say 16 bits" in only_problem(course(lesson=lesson))


def test_a_value_in_another_unit_is_found(course):
    lesson = LESSON.replace("[16 bits](CLAIMS.md#bf16-bits);", "[16 bytes](CLAIMS.md#bf16-bits);")
    assert "[16 bytes] does not say 16 bits" in only_problem(course(lesson=lesson))


def test_a_value_that_differs_in_a_question_is_found(course):
    questions = QUESTIONS.replace("[16 bits]", "[8 bits]")
    assert only_problem(course(questions=questions)).startswith(
        "questions.toml [length]: [8 bits] does not say"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "7 GB",
        "4-bit",
        "16 bits",
        "12%",
        "8 billion parameters",
        "40 tokens/s",
        "$20",
        "3 minutes",
        "2× faster",
        "1.5 million",
        "a thousand times",
        "a\n# thousand times",
        "four fifths",
        "tens of millions",
        "two hundred tokens",
        "twenty-four hours",
    ],
)
def test_an_unlinked_number_with_a_unit_is_found(course, statement):
    lesson = LESSON.replace("See [the docs]", f"It takes {statement} more. [the docs]")
    assert "has a unit and no claim" in only_problem(course(lesson=lesson))


def test_a_number_in_words_is_linked_like_one_in_digits(course):
    lesson = LESSON.replace("[16 bits](CLAIMS.md#bf16-bits);", "[sixteen bits](CLAIMS.md#bf16-bits);")
    assert problems(course(lesson=lesson)) == []
    lesson = lesson.replace("sixteen", "seventeen")
    assert "[seventeen bits] does not say 16 bits" in only_problem(course(lesson=lesson))


def test_a_number_written_into_an_alt_text_is_found_and_a_computed_one_is_not(course):
    drawn = 'figure(\n    alt="Bars: the share grows to "\n    "four fifths.",\n)\n'
    assert "'80%' has a unit and no claim" in only_problem(course(lesson=LESSON + drawn))
    assert problems(course(lesson=LESSON + 'figure(alt=f"Bars: the share grows to {share:.0%}.")\n')) == []


def test_a_sentence_is_quoted_only_from_a_source_that_somebody_read(course):
    said = 'They said "[in the preceding\n# calendar month](https://example.org/), each and every time".'
    words = "in the preceding calendar month, each and every time"
    found = only_problem(course(lesson=LESSON.replace("See [the docs]", said + " See [the docs]")))
    assert f"“{words}” stands in no claim's quotation" in found
    ledger = LEDGER.replace("in the preceding calendar month", words)
    assert problems(course(ledger, LESSON.replace("See [the docs]", said + " See [the docs]"))) == []


def test_an_unlinked_number_in_a_question_is_found(course):
    questions = QUESTIONS.replace('text = "sixteen"', 'text = "16 bytes"')
    assert "'16 bytes' has a unit and no claim" in only_problem(course(questions=questions))


@pytest.mark.parametrize(
    "words",
    [
        *("Llama 3.1", "lesson 04", "Llama 3.1 8B", "step 2 of 3", "int8", "Q4_K_M", "Apache 2.0", "in 2024"),
        *("two ways", "one bit", "a quarter of an idea", "a hundred things", "millions of numbers"),
    ],
)
def test_names_and_ordinals_are_no_statements(words):
    assert unlinked(f"See {words} for more.") == []


def test_a_quotation_without_the_value_is_found(course):
    ledger = LEDGER.replace("is greater than 700 million", "is greater than 600 million")
    assert "the quotation does not contain 700 million" in only_problem(course(ledger=ledger))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("GPU memory 80GB", "GPU memory 80GB " + "word " * 24, "the quotation has 27 words"),
        ("as_of = 2026-11-18\n", "", "a spec needs a source with as_of"),
        ('publisher = "Maker"\n', "", "the source lacks publisher"),
        ("read = 2026-11-19", "read = 2999-01-01", "not a day in the past"),
        ("read = 2026-11-19", 'read = "yesterday"', "not a day in the past"),
        ("https://example.org/sheet", "http://example.org/sheet", "does not begin with https://"),
        ('kind = "spec"', 'kind = "rumour"', "is none of fact, spec, price"),
        ('kind = "spec"', 'check = "80"', "either a check or a source, and not both"),
        ('kind = "spec"', 'colour = "green"', "unknown fields ['colour']"),
        ("value = 80", "value = true", "neither a number nor a text"),
    ],
)  # fmt: skip
def test_a_claim_of_bad_form_is_found(course, old, new, told):
    assert old in LEDGER
    found = [str(problem) for problem in problems(course(ledger=LEDGER.replace(old, new)))]
    assert any("[gpu-memory]" in problem and told in problem for problem in found), found


def test_a_claim_without_any_proof_is_found(course):
    ledger = LEDGER.replace("check = ", "unit_note = ").replace(
        "unit_note = \"anatomy.formats.format_named('bf16').bits_per_weight\"", ""
    )
    assert "needs either a check or a source" in str(problems(course(ledger=ledger))[0])


def test_a_link_from_a_lab_counts_as_a_use(course, tmp_path):
    lesson = LESSON.replace("[700 million](CLAIMS.md#llama-users)", "high")
    lab = tmp_path / "lab01.py"
    lab.write_text(
        "# %% [markdown]\n# Below [700 million](../lessons/CLAIMS.md#llama-users): 12 GB for you.\n"
    )
    assert problems(course(lesson=lesson), also_linking=[lab]) == []


def test_quantities_are_read_with_scale_unit_and_precision():
    text = "1,024 bytes, 16.06 GB, 128 KiB per token, 39.3M GPU hours, 15 trillion tokens, 8B, 3 TB/s"
    read = {q.text: round(q.value) for q in quantities(text)}
    assert read == {
        "1,024 bytes": 1024,
        "16.06 GB": 16.06e9,
        "128 KiB": 131072,
        "39.3M GPU hours": 39.3e6,
        "15 trillion tokens": 15e12,
        "8B": 8e9,
        "3 TB/s": 3e12,
    }


@pytest.mark.parametrize(
    ("text", "value", "unit", "same"),
    [
        ("16 GB", 16.06e9, "GB", True),
        ("16.1 GB", 16.06e9, "GB", True),
        ("16.0 GB", 16.06e9, "GB", False),
        ("16,060 MB", 16.06e9, "GB", True),
        ("16 GiB", 16.06e9, "GB", False),
        ("131,072 bytes", 131072, "bytes", True),
        ("131,073 bytes", 131072, "bytes", False),
        ("128 KiB", 131072, "bytes", True),
        ("3 TB/s", 3e12, "TB", False),
        ("3", 3, "tokens", True),
    ],
)
def test_a_rounded_number_means_the_same_and_a_wrong_one_does_not(text, value, unit, same):
    assert quantities(text)[0].means(value, unit) is same


def test_prose_is_the_markdown_and_nothing_else():
    (passage,) = prose(LESSON)
    assert passage.text.startswith("# A lesson\n\n**Time:**")
    assert "9 GB" not in passage.text


def test_the_page_has_a_heading_per_claim_with_its_proof(course):
    page = ledger_page(course())
    assert "## bf16-bits" in page
    assert "**Check:** `anatomy.formats" in page
    assert "[Llama 3.1 Community License](https://example.org/LICENSE), Meta; read 2026-11-20" in page


def test_the_command_fails_on_a_problem_and_prints_it(course, capsys):
    assert main(["check", str(course())]) == 0
    folder = course(
        lesson=LESSON.replace("[16 bits](CLAIMS.md#bf16-bits);", "[17 bits](CLAIMS.md#bf16-bits);")
    )
    assert main(["check", str(folder)]) == 1
    assert "[17 bits] does not say 16 bits" in capsys.readouterr().out
    assert main(["write", str(folder)]) == 0
    assert (folder / "CLAIMS.md").read_text() == ledger_page(folder)
    assert main(["sing", str(folder)]) == 2


def test_a_ledger_that_is_missing_or_no_toml_is_told(course, tmp_path, capsys):
    with pytest.raises(LedgerError, match="cannot be read"):
        read_ledger(tmp_path / "nowhere.toml")
    assert main(["check", str(course(ledger="[half"))]) == 1
    assert "claims.toml cannot be read" in capsys.readouterr().err
