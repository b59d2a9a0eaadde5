"""Sentences, turns, words, speakers, names and numbers by rule; and that no text makes the rules crash or crawl."""

import time

import pytest

from lab_utils import texts

HOSTILE = {
    "empty": "",
    "spaces": " \n\t ",
    "nul": "Ann\x00 pays\x00 5",
    "surrogate": "Ann \ud800 pays \udfff5",
    "right-to-left": "آن تدفع \u202eخمسة ٣٤",
    "emoji": "😀 Ann 👩\u200d👩\u200d👧 pays 5️⃣",
    "script": "<script>alert('Ann 5')</script>: & \"quotes\"",
    "odd-digits": "x² ½ ① ٣:٤٥ 5⁵ 1:2:3:4 0.0.0 00:00 ٣",
    "one-word": "a" * 100_000,
    "one-digit": "1" * 100_000,
    "capitals": "Ann " * 25_000,
    "hashes": "#" * 100_000,
    "tags": "#a" * 50_000,
    "apostrophes": "a'" * 50_000,
    "colons": "a:" * 50_000,
    "labels": "".join(f"A{i}: b\n" for i in range(10_000)),
    "hundreds": "hundred " * 12_500,
    "a-hundreds": "a hundred million and " * 5_000,
    "tens-to": "ten to " * 15_000,
    "half-past": "half past " * 10_000,
    "hyphens": "ten-" * 25_000,
    "blank-lines": "\n" * 100_000,
    "blank-line": " " * 100_000,
    "points": ". " * 50_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_makes_a_rule_crash_or_crawl(text):
    started = time.process_time()
    texts.split_sentences(text), texts.units(text), texts.words(text)
    texts.named_speakers(text, texts.speakers(text))
    texts.unknown_names(text, text, "known"), texts.numbers(text)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It costs 3.50 at 8.15 p.m", ["It costs 3.50 at 8.15 p.m"]),
        ("One\nTwo\n\n\nThree.  Four.", ["One", "Two", "Three.", "Four."]),
        ("  One.  ", ["One."]),
        ("Really?! Yes...  No.", ["Really?!", "Yes...", "No."]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences_end_at_punctuation_before_a_space_and_at_line_breaks(text, sentences):
    assert texts.split_sentences(text) == sentences


@pytest.mark.parametrize(
    ("document", "units"),
    [
        ("Ann: Hi. Bye.\n\n \nBen: Yes.", ["Ann: Hi. Bye.", "Ben: Yes."]),
        ("A cat sat. It slept.", ["A cat sat.", "It slept."]),
        ("\nA cat sat. It slept.\n", ["A cat sat.", "It slept."]),
        ("", []),
    ],
)
def test_a_document_is_read_in_turns_or_where_it_has_one_line_in_sentences(document, units):
    assert texts.units(document) == units


def test_words_are_lower_case_keep_their_apostrophe_and_tags_are_one_word():
    assert texts.words("#Person1#'s dog didn’t eat 2 Éclairs-au-lait!") == [
        "#person1#", "s", "dog", "didn’t", "eat", "2", "éclairs", "au", "lait",
    ]  # fmt: skip


def test_speakers_come_in_order_of_appearance_once_each():
    document = "Ben: At 10:30?\n#Person1#: Yes: ten.\nBen: Good.\n\nno speaker here"
    assert texts.speakers(document) == ["Ben", "#Person1#"]


@pytest.mark.parametrize(
    "line",
    [
        "It starts at 10:30",
        "See https://example.org",
        "After the rain, the mayor said: stay",
        "The mayor of the town said: stay",
        ": hm",
        "x" * 41 + ": a",
    ],
)
def test_a_colon_inside_a_sentence_labels_no_speaker(line):
    assert texts.speakers(f"{line}\nDr. Van Dyke: yes") == ["Dr. Van Dyke"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Ann's dog likes Ben.", {"Ann", "Ben"}),
        ("Annabel rests.", set()),
        ("Will will go", {"Will"}),
        ("He will go", set()),
        ("#Person1#'s car; Person 2 pays, Person12 waits", {"#Person1#", "#Person2#"}),
        ("Mary Ann calls", {"Mary Ann", "Ann"}),
        ("Ann calls Mary", {"Ann"}),
        ("", set()),
    ],
)
def test_a_speaker_is_named_by_the_whole_label_in_its_case(text, named):
    assert texts.named_speakers(text, ["Ann", "Ben", "Will", "#Person1#", "#Person2#", "Mary Ann", "😀"]) == named


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Ann meets Ben O'Brien in Łódź.", {"Ann", "Ben", "O'Brien", "Łódź"}),
        ("#Person1# calls #Person2#.", {"#Person1#", "#Person2#"}),
        ("Marie-Claire's and the Smiths’ house", {"Marie", "Claire", "Smiths"}),
        ("Because of rain they stay. However, I'm late. Don't! She'll go.", set()),
        ("They ask Will in May. Will they?", {"Will", "May"}),
        ("“The dog barks,” says Ann.", {"Ann"}),
        ("Mr. Brown pays. Customers wait.", {"Brown"}),
        ("A x B", set()),
        ("he meets nobody", set()),
    ],
)
def test_capitalised_words_are_names_and_function_words_are_not(text, names):
    assert texts.names(text, ordinary=["brown"]) == names


def test_a_title_is_not_the_end_of_a_sentence():
    """After "Mr." a word that is also written small is a name; after another point it begins a sentence."""
    assert texts.names("He met Mr. Brown.", ordinary=["brown"]) == {"Brown"}
    assert texts.names("He met him. Brown is a colour.", ordinary=["brown"]) == set()


def test_a_word_that_is_written_small_elsewhere_is_a_name_only_inside_a_sentence():
    small = texts.small_words("the rose is red")
    assert texts.names("Rose is here.", small) == set() and texts.names("We saw Rose.", small) == {"Rose"}


@pytest.mark.parametrize(
    ("summary", "unknown"),
    [
        ("Ann meets Gavin.", {"Gavin"}),
        ("Person1 and #Person2# meet on Thursdays at Fabiola's.", set()),
        ("Sheep stand in the Barn.", set()),
        ("Gavin's dog. Gavin sleeps.", {"Gavin"}),
        ("", set()),
    ],
)
def test_a_name_is_unknown_if_the_document_has_it_in_no_form(summary, unknown):
    document = "#Person1#: Ann, are the sheep in the barn?\n#Person2#: At Fabiola’s, on THURSDAY."
    assert texts.unknown_names(summary, document) == unknown


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,000 people, a thousand, one thousand, 1000", {"1000"}),
        ("two hundred and fifty, 250, 250.00", {"250"}),
        ("twenty-one thousand and 21,000", {"21000"}),
        ("5 million and five million", {"5000000"}),
        ("a hundred and fifty thousand", {"150000"}),
        ("two thousand and one", {"2001"}),
        ("a dozen and half a dozen, two dozen", {"12", "6", "24"}),
        ("from ten to twelve people", {"10", "12"}),
        ("at ten to twelve, at 11:50", {"11:50"}),
        ("half past seven, half seven, seven thirty, seven-thirty, 7:30, 7.30, 07:30", {"7:30"}),
        ("quarter past six, a quarter to seven", {"6:15", "6:45"}),
        ("quarter to one", {"12:45"}),
        ("twenty-five past seven", {"7:25"}),
        ("8:00, eight, 8 o'clock, 8pm", {"8"}),
        ("the twenty-third, 23rd, the fifth, 5th", {"23", "5"}),
        ("one, 1, first, 1st, a second, 2nd, third", set()),
        ("the two agree, two people, two hours", {"2"}),
        ("the two people", set()),
        ("the two hundred and ten euros", {"210"}),
        ("#Person2# and Person 2 and Person2 in B12", set()),
        ("five twenty-euro notes", {"5", "20"}),
        ("20 thirty", {"20", "30"}),
        ("five and six, 5-6", {"5", "6"}),
        ("nine hundred, nine-year-olds", {"900", "9"}),
        ("$9.65 and 3.5 percent", {"9.65", "3.5"}),
        ("007", {"7"}),
        ("Zero!", {"0"}),
        ("", set()),
    ],
)
def test_equal_numbers_are_written_alike(text, numbers):
    assert texts.numbers(text) == numbers


def test_a_number_as_long_as_a_page_stays_as_it_is():
    assert texts.numbers("9" * 5000) == {"9" * 5000}
