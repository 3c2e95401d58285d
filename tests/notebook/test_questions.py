"""A question whose every option teaches, usable without a mouse and without a kernel."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from labsupport.notebook.questions import QuizError, quiz, right, wrong

GOOD = right("2 bytes", because="Sixteen bits are two bytes of eight.")
BAD = wrong("16 bytes", because="Sixteen is the number of bits, not bytes.")


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


def test_every_option_is_a_disclosure_that_the_keyboard_opens():
    page = quiz("How long?", GOOD, BAD).html()
    tags = Tags()
    tags.feed(page)
    assert tags.seen.count("details") == tags.seen.count("summary") == 2
    assert "script" not in tags.seen
    assert not tags.open


def test_the_page_tells_right_from_wrong_and_why_only_inside_the_options():
    page = quiz("How long?", GOOD, BAD).html()
    before_first_option = page.split("<details")[0]
    assert "Right" not in before_first_option
    assert "✓ Right.</strong> Sixteen bits are two bytes of eight." in page
    assert "✗ No.</strong> Sixteen is the number of bits" in page


def test_the_text_of_a_saved_page_does_not_give_the_answer_away():
    assert quiz("How long?", GOOD, BAD).plain() == "How long?\n  - 2 bytes\n  - 16 bytes"


@pytest.mark.parametrize(
    "options",
    [
        (GOOD,),
        (GOOD, GOOD),
        (BAD, wrong("1 byte", because="That would be eight bits only.")),
        (GOOD, right("also", because="Because it is right as well, really.")),
        (GOOD, wrong("no reason", because="")),
        (right("no reason", because="It just is."), BAD),
    ],
)
def test_a_question_that_would_not_teach_is_refused(options):
    with pytest.raises(QuizError):
        quiz("How long?", *options)


def test_code_emphasis_and_links_are_marked_up_and_markup_is_escaped():
    page = quiz("Is `x<y` *strict*? [16](CLAIMS.md#bits)", GOOD, BAD).html()
    assert '<code>x&lt;y</code> <em>strict</em>? <a href="CLAIMS.md#bits">16</a>' in page
