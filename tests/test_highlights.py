"""Which words of a document a summary rests on: what is marked, and how it is shown."""

import re

import pytest

from lab_utils import highlights, texts, tracing

HELP = "Ann: Hello, Bob.\nBob: Call a plumber.\nAnn: Monday suits."


def marked(pieces):
    return [text for text, on in pieces if on]


def test_words_are_marked_in_the_turn_that_the_summary_rests_on_and_in_no_other():
    turns, summary = tracing.traced("Bob called a plumber.", HELP)
    assert [marked(turn) for turn in turns] == [[], ["Bob", "Call", "plumber"], []]
    assert marked(summary) == []


def test_a_word_of_the_summary_that_stands_nowhere_is_marked_there():
    turns, summary = tracing.traced("Ann greets the plumber.", HELP)
    assert marked(summary) == ["greets"]
    assert "greets" not in str(turns)


def test_a_tag_without_its_marks_is_no_foreign_word():
    assert marked(tracing.traced("Person1 greets.", "#Person1#: Hello.")[1]) == ["greets"]


def test_function_words_are_never_marked():
    turns, summary = tracing.traced("A plumber suits a Bob.", HELP)
    assert "a" not in sum((marked(turn) for turn in turns), [])


@pytest.mark.parametrize(
    "document", [HELP, "", "One line. Two sentences.", "İstanbul's: naïve façade.\n\n#Person1#: it's 7:30", "<b>&\n\x07:"]
)
@pytest.mark.parametrize("summary", ["Bob called a plumber.", "", "It's İstanbul at 7:30 <i>", HELP])
def test_the_pieces_of_a_text_joined_are_the_text(summary, document):
    turns, pieces = tracing.traced(summary, document)
    assert ["".join(text for text, _ in turn) for turn in turns] == texts.units(document)
    assert "".join(text for text, _ in pieces) == summary


def test_each_turn_of_a_document_rests_on_itself():
    turns, _ = tracing.traced(HELP, HELP)
    assert [marked(turn) for turn in turns] == [["Ann", "Hello", "Bob"], ["Bob", "Call", "plumber"], ["Ann", "Monday", "suits"]]


def test_a_caption_tells_counts_turns_and_foreign_words():
    assert highlights.mark("Bob called a plumber.", HELP, "LoRA").caption == (
        "LoRA: the summary rests on 3 of the document's 10 words, in passage 2 of 3. Each of its content words stands in the document."
    )
    caption = highlights.mark("Zebras graze.", HELP, "full").caption
    assert "rests on 0 of" in caption and caption.endswith("Nowhere in the document: Zebras, graze.") and "passage" not in caption


def test_long_lists_in_a_caption_are_cut():
    assert "and 4 more" in highlights.mark(" ".join(f"zebra{n}" for n in range(12)), HELP, "full").caption


def test_without_html_marked_words_stand_in_brackets():
    shown = repr(highlights.mark("Bob called a zebra.", HELP, "LoRA"))
    assert "[Bob]: [Call] a plumber." in shown and "(zebra?)" in shown


def test_html_holds_the_caption_and_marks_that_need_no_colour():
    shown = highlights.mark("Bob called a zebra.", HELP, "LoRA")._repr_html_()
    assert "<b>Call</b></mark>" in shown and ">zebra</em>" in shown and "<figcaption>LoRA: the summary rests on" in shown


def test_texts_are_escaped_and_never_taken_for_formulas_or_given_a_direction():
    document = "<script>: $a$ & b\u202e evil\nBob: <img src=x>"
    shown = highlights.mark("<script> evil <img>", document, "<b>")._repr_html_()
    assert not re.search(r"<(script|img)", shown) and "\u202e" not in shown and "&lt;b&gt;" in shown
    assert shown.startswith('<figure class="tex2jax_ignore mathjax_ignore"')


def test_a_figure_is_no_wider_than_a_phone_needs():
    shown = highlights.mark("word", "x" * 500, "LoRA")._repr_html_()
    assert "overflow-wrap: anywhere" in shown and not re.search(r"(?<!max-)width: \d", shown)
