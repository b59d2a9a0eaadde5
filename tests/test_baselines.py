"""Summaries that copy: the first turns, the longest turns, everything."""

import pytest

from lab_utils.baselines import LINES, lead, longest, whole

DIALOGUE = "A: one\n\n  \nB: one two three four\nA: one two\nB: one two three\nA: one two three"


def test_lead_is_the_first_turns_without_blank_lines():
    document = "A: 1\n\n  \nB: 2\nA: 3\nB: 4"
    assert lead(document) == "A: 1\nB: 2\nA: 3"
    assert lead(document, 1) == "A: 1"
    assert lead("one line") == "one line"


def test_of_a_text_in_one_line_the_first_sentences_are_taken():
    assert lead("One. Two! Three? Four.") == "One. Two! Three?"


def test_longest_takes_the_longest_turns_in_their_order_and_the_earlier_of_equal_ones():
    """Of 2, 5, 3, 4 and 4 words with the label: the second turn, and the fourth before the fifth."""
    assert longest(DIALOGUE) == "B: one two three four\nB: one two three\nA: one two three"
    assert longest(DIALOGUE, 2) == "B: one two three four\nB: one two three"
    assert longest("Short one. This is a longer sentence. This is long.", 2) == "This is a longer sentence. This is long."


def test_the_whole_document_is_left_as_it_is():
    assert whole(DIALOGUE) == DIALOGUE


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
@pytest.mark.parametrize("document", ["", " \n ", "\n", "x", "A: <b>\x00\ud800</b>", "a. " * 40_000], ids=range(6))
def test_any_document_gives_a_text_that_is_made_of_it(line, document):
    assert set(line(document)) <= set(document) | {" "}
