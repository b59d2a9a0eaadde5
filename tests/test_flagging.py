import time

import pytest

from lab_utils import flagging, texts, tracing
from lab_utils.data import Example
from lab_utils.generation import Prediction

DOCUMENT = "Vera: I can lend you my car until Friday, the 5th.\nGideon: Thanks. The old one broke at 7:30.\nVera: Bring it back to Ghent."
REFERENCES = ("Vera lends Gideon the car until Friday.", "Gideon's car broke, so Vera lends hers, about 20 years old.")


def kinds(summary, document=DOCUMENT, references=REFERENCES, stopped=True):
    return {
        flag.kind: flag.detail for flag in flagging.flags(Prediction("d", summary, (), 72, stopped), Example("d", document, references))
    }


@pytest.mark.parametrize(
    "summary", [*REFERENCES, "Gideon must bring the car back to Ghent by the fifth, since his broke at half past seven."]
)
def test_a_faithful_summary_has_no_flag(summary):
    assert kinds(summary) == {}


@pytest.mark.parametrize("summary", ["", " \n\t", "... !", "\u2764\ufe0f"])
def test_a_summary_without_a_word_is_empty(summary):
    assert list(kinds(summary)) == ["empty"]


def test_the_length_limit_is_told_with_its_tokens():
    assert "72 tokens" in kinds("Vera lends the car", stopped=False)["unstopped"]


def test_the_last_word_of_an_unstopped_summary_is_not_held_against_it():
    assert "unknown name" in kinds("The car belongs to Gid")
    assert list(kinds("The car belongs to Gid", stopped=False)) == ["unstopped"]
    assert "wrong number" not in kinds("It broke at 7", stopped=False)
    assert list(kinds("Gid", stopped=False)) == ["unstopped"]


def test_a_number_is_wrong_that_neither_the_document_nor_any_reference_has():
    assert kinds("Gideon gets the car for 9 days and 300 euros.")["wrong number"].startswith("300, 9: ")
    assert kinds("The car is 20 years old. It broke at seven thirty.") == {}


def test_a_number_of_the_document_is_found_with_a_space_after_its_comma():
    assert kinds("It costs 100,000.", "A: It is 100, 000 RMB.", ("It is dear.",)) == {}
    assert kinds("They pay 5.", "A: I pay 5, 100 is too dear.", ("It is dear.",)) == {}
    assert "wrong number" in kinds("It costs 200,000.", "A: It is 100, 000 RMB.", ("It is dear.",))


def test_a_name_is_unknown_that_stands_nowhere():
    assert kinds("Vera lends Gaston the car until Friday.")["unknown name"].startswith("Gaston: ")
    assert kinds("They're going to Ghent.") == {}


def test_long_lists_and_long_words_are_cut_in_the_detail():
    detail = kinds(" ".join(f"x N{letter * 100}" for letter in "abcdefgh"))["unknown name"]
    assert "and 3 more" in detail and len(detail) < 350


@pytest.mark.parametrize(
    "summary",
    [
        "Vera lends a car. Vera lends a car.",  # a sentence twice
        "Gideon gets a car until next Friday and he gets a car until next Friday too.",  # six words twice
        "He gets a car now, then he gets a car again, and he gets a car.",  # four words three times
    ],
)
def test_what_is_said_again_and_again_is_a_repeat(summary):
    assert "times" in kinds(summary)["repeats"]


@pytest.mark.parametrize(
    "summary", ["Vera will bring the car. Gideon will bring the tent. Friends will bring the food.", "No. No. No. Vera says no."]
)
def test_parallel_sentences_and_short_cries_are_no_repeat(summary):
    assert "repeats" not in kinds(summary)


def test_a_repeat_of_the_document_is_no_repeat_of_the_summary():
    chant = "Vera: I will lend my car tomorrow.\nGideon: What?\nVera: I will lend my car tomorrow."
    twice = "I will lend my car tomorrow. I will lend my car tomorrow."
    assert "repeats" not in kinds(twice, chant)
    assert "repeats" in kinds(f"{twice} I will lend my car tomorrow.", chant)


def test_exchanged_speakers_are_found_by_the_pairs_of_words_that_fit_again():
    # Pairs: gideon lends, lends vera, vera the, the car, car until, until friday.
    # 3 of the 6 stand in the reference; with the names exchanged all do.
    detail = kinds("Gideon lends Vera the car until Friday.")["swapped speakers"]
    assert detail == "With Vera and Gideon exchanged, ROUGE-2 rises from 50 to 100."


def test_a_tag_may_lack_its_marks():
    document = "#Person1#: I can lend you my car until Friday.\n#Person2#: Thanks."
    for summary in ("#Person2# lends #Person1# the car until Friday.", "Person2 lends Person1 the car until Friday."):
        assert list(kinds(summary, document, ("#Person1# lends #Person2# the car until Friday.",))) == ["swapped speakers"]


def test_a_swap_is_judged_by_the_best_reference():
    references = ("Gideon lends Vera the car until Friday.", "Vera lends Gideon the car until Friday.")
    assert kinds("Gideon lends Vera the car until Friday.", references=references) == {}


def test_one_pair_that_fits_better_is_no_swap():
    # Only "gideon lends" changes: 4 of 5 pairs before, 5 of 5 after.
    assert kinds("Gideon lends the car until Friday.", references=("Vera lends the car until Friday.",)) == {}


def test_a_small_rise_in_a_long_text_is_no_swap():
    # 70 other words: 3 of 72 pairs change, 200 * 3 / 144 = 4.2 points; with 40 of them 200 * 3 / 84 = 7.1.
    for count, flagged in [(70, False), (40, True)]:
        rest = " ".join(f"w{letter}x" for letter in map(chr, range(0x4E00, 0x4E00 + count)))
        found = kinds(f"Gideon lends Vera {rest}.", references=(f"Vera lends Gideon {rest}.",))
        assert ("swapped speakers" in found) == flagged


def test_the_order_in_which_two_speakers_are_listed_is_no_swap():
    reference = "Vera and Gideon are friends of old. Vera and Gideon are neighbours."
    assert kinds("Gideon and Vera are friends of old. Gideon and Vera are neighbours.", references=(reference,)) == {}


def test_a_conjunction_before_a_name_tells_nothing_about_who_did_what():
    # Exchanged, "and gideon" and "but gideon" would fit.
    assert kinds("Gideon naps and Vera eats but Vera pays.", references=("Vera sews and Gideon mows but Gideon digs.",)) == {}


def test_texts_too_long_for_a_search_are_not_tried_for_a_swap():
    for length, flagged in [(9_000, True), (11_000, False)]:
        found = kinds(f"Gideon lends Vera the car, {'x' * length}.", references=("Vera lends Gideon the car.",))
        assert ("swapped speakers" in found) == flagged


def test_names_that_do_not_speak_are_not_tried_for_a_swap():
    document = "Vera: Ann lends Bob the car until Friday.\nGideon: Fine."
    assert kinds("Bob lends Ann the car until Friday.", document, ("Ann lends Bob the car until Friday.",)) == {}


def test_a_speaker_inside_a_word_is_none():
    document = "ted: I lend you my car.\nann: Thanks."
    assert kinds("She wanted a planted bed.", document, ("She wanann a planann bed.",)) == {}  # "ted" ends a word
    assert kinds("She was tedious in her annex.", document, ("She was annious in her tedex.",)) == {}  # "ted" begins one


def test_every_kind_has_its_sentence_and_flags_come_in_that_order():
    found = kinds("Gideon lends Vera the car until Friday for 300 euros. Otto. x y z. x y z. cut", stopped=False)
    assert list(found) == [kind for kind in flagging.KINDS if kind != "empty"]
    assert all(text.endswith(".") and len(text) > 40 for text in flagging.KINDS.values())


HOSTILE = {
    "html": "<script>alert(1)</script>: <b>x</b>\n{0} %s \\1 \\g<2>: y",
    "emoji": "\U0001f600\U0001f600: \U0001f600 ok\n\u2764\ufe0f: \u2764\ufe0f",
    "right to left": "\u202e\u05d3\u05e0\u05d9: \u05e9\u05dc\u05d5\u05dd\n\u0645\u0631\u064a\u0645: \u0663\u0664",
    "control": "a\x00b: c\x00\nd: \ud800 lone \udfff",
    "one letter": "a" * 100_000,
    "names": "Aa Bb. " * 14_000,
    "digits": "1 " * 50_000,
    "lines": "\n".join(f"S{i}: word{i} said {i}" for i in range(5_000)),
    "speakers": "".join(f"{chr(0x4E00 + i)}: {chr(0x4E00 + i)}\n" for i in range(2_000)),
    "one line": "He said it again. " * 5_500,
    "spaces": " " * 100_000,
    "colons": ":" * 100_000,
    "patterns": "(.*)+: [a-z\n(?P<x>: $^\\",
    "empty": "",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("place", ["everywhere", "prediction", "document"])
def test_hostile_text_neither_breaks_nor_stalls(text, place):
    document, summary, reference = (text if place in ("everywhere", name) else DOCUMENT for name in ("document", "prediction", "reference"))
    start = time.perf_counter()
    found = flagging.flags(Prediction("d", summary, (), 1, False), Example("d", document, (reference,)))
    assert all(len(flag.detail) < 500 for flag in found)
    shares = tracing.leaning(summary, document)
    assert len(shares) == len(texts.units(document)) and 0 <= sum(shares) <= 1 + 1e-9
    tracing.where_it_matters(Example("d", document, (reference,)))
    assert time.perf_counter() - start < 8  # a second or two each on a free core; quadratic time takes minutes
