"""A question whose every option teaches, usable without a mouse and without a kernel."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from labsupport.notebook.questions import QuizError, marked_up, quiz

GOOD = """
[length]
question = "How long is `x<y`?"
[[length.options]]
text = "2 bytes"
right = true
because = "Sixteen bits are two bytes of eight."
[[length.options]]
text = "16 bytes"
because = "Sixteen is the number of bits, not bytes."
"""


@pytest.fixture
def asked(tmp_path):
    """The question `length` of a file with this text."""

    def ask(text=GOOD, name="length"):
        (tmp_path / "questions.toml").write_text(text)
        return quiz(name, folder=tmp_path)

    return ask


class Tags(HTMLParser):
    """Counts tags and checks that they close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_every_option_is_a_disclosure_that_the_keyboard_opens(asked):
    tags = Tags()
    tags.feed(asked().html())
    assert tags.seen.count("details") == tags.seen.count("summary") == 2
    assert "script" not in tags.seen
    assert not tags.open


def test_the_page_tells_right_from_wrong_and_why_only_inside_the_options(asked):
    page = asked().html()
    assert "Right" not in page.split("<details")[0]
    assert "✓ Right.</strong> Sixteen bits are two bytes of eight." in page
    assert "✗ No.</strong> Sixteen is the number of bits" in page


def test_the_text_of_a_saved_page_does_not_give_the_answer_away(asked):
    assert asked().plain() == "How long is `x<y`?\n  - 2 bytes\n  - 16 bytes"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("right = true\n", "", "no single right option"),
        ('because = "Sixteen is', 'right = true\nbecause = "Sixteen is', "no single right option"),
        ("16 bytes", "2 bytes", "all different"),
        ("Sixteen is the number of bits, not bytes.", "", "says because=''"),
        ("Sixteen bits are two bytes of eight.", "It just is.", "says because="),
        ('text = "16 bytes"\n', "", "lacks 'text'"),
        ("question =", "ask =", "lacks 'question'"),
        ("[length]", "[length", "cannot be read"),
    ],
)
def test_a_question_that_would_not_teach_is_refused(asked, old, new, told):
    with pytest.raises(QuizError) as caught:
        asked(GOOD.replace(old, new, 1))
    assert told in str(caught.value)


def test_a_name_that_is_not_there_is_told_with_those_that_are(asked):
    with pytest.raises(QuizError, match=r"no question 'lenght'\nAllowed: length"):
        asked(name="lenght")


def test_a_notebook_in_the_wrong_folder_is_told_where_to_open_it(tmp_path):
    with pytest.raises(QuizError, match="in the folder `lessons`"):
        quiz("length", folder=tmp_path)


def test_code_emphasis_and_links_are_marked_up_and_markup_is_escaped():
    page = marked_up("Is `x<y` *strict*? [16](CLAIMS.md#bits)")
    assert page == 'Is <code>x&lt;y</code> <em>strict</em>? <a href="CLAIMS.md#bits">16</a>'
