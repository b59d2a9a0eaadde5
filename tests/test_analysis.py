import math
import time
from types import SimpleNamespace

import numpy as np
import pytest

from lab_utils import analysis, plots
from lab_utils.comparison import Line
from lab_utils.data import Example
from lab_utils.errors import LabError
from lab_utils.generation import Prediction
from lab_utils.significance import Interval, bootstrap, unpaired_difference

DOCUMENT = "Vera: I can lend you my car until Friday, the 5th.\nGideon: Thanks. The old one broke at 7:30.\nVera: Bring it back to Ghent."
REFERENCES = ("Vera lends Gideon the car until Friday.", "Gideon's car broke, so Vera lends hers, about 20 years old.")


def kinds(summary, document=DOCUMENT, references=REFERENCES, stopped=True):
    return {
        flag.kind: flag.detail for flag in analysis.flags(Prediction("d", summary, (), 72, stopped), Example("d", document, references))
    }


# --- flags


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
    assert list(found) == [kind for kind in analysis.KINDS if kind != "empty"]
    assert all(text.endswith(".") and len(text) > 40 for text in analysis.KINDS.values())


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
    found = analysis.flags(Prediction("d", summary, (), 1, False), Example("d", document, (reference,)))
    assert all(len(flag.detail) < 500 for flag in found)
    shares = analysis.leaning(summary, document)
    assert len(shares) == len(analysis.units(document)) and 0 <= sum(shares) <= 1 + 1e-9
    analysis.where_it_matters(Example("d", document, (reference,)))
    assert time.perf_counter() - start < 8  # a second or two each on a free core; quadratic time takes minutes


# --- leaning

HELP = "Ann: Hello, Bob.\nBob: Call a plumber.\nAnn: Monday suits."


def test_a_summary_leans_on_the_turn_that_its_words_come_from():
    assert analysis.leaning("Bob called a plumber.", HELP) == [0, 1, 0]


def test_a_name_that_stands_everywhere_weighs_little_and_follows_the_best_match():
    # ann stands in two turns and counts 1/2; monday and suit 1 each; the pairs "ann suit" and "suit monday" stand nowhere.
    assert analysis.leaning("Ann suits Monday", HELP) == pytest.approx([0, 0, 2.5 / 4.5])


def test_each_sentence_looks_for_its_own_best_match():
    # "Ann greets": ann 1/2 to the first turn (as good as the third), greet and the pair nowhere.
    # "Monday suits": all three on the third turn.
    assert analysis.leaning("Ann greets. Monday suits.", HELP) == pytest.approx([0.5 / 5.5, 0, 3 / 5.5])


def test_a_rare_word_outweighs_common_ones_in_the_match():
    # apple and boat stand in three turns each (1/3), rare in one; the pairs "rare boat" and "boat apple" stand nowhere (1 each).
    # The third turn matches with 1 + 1/3 and takes rare and apple; the first, with 2/3, takes boat.
    document = "apple boat\napple boat\napple rare\nboat sail"
    assert analysis.leaning("Rare boat apple", document) == pytest.approx([(1 / 3) / (11 / 3), 0, (4 / 3) / (11 / 3), 0])


def test_what_stands_nowhere_rests_on_nothing():
    assert sum(analysis.leaning("Zebras graze", HELP)) == 0
    assert analysis.leaning("", HELP) == [0, 0, 0]
    assert analysis.leaning("anything", "") == []


def test_the_document_leans_on_all_of_itself():
    shares = analysis.leaning(HELP, HELP)
    assert sum(shares) == pytest.approx(1) and min(shares) > 0


def test_function_words_carry_no_leaning():
    assert sum(analysis.leaning("They don't have it, and she'll be there.", "A: They don't have it.\nB: She'll be there.")) == 0


def test_a_document_in_one_line_is_taken_by_sentences():
    assert analysis.leaning("A plumber is called.", "The tap drips. They call a plumber. It rains.")[1] > 0


# --- best, worst, disagreements


def line(name, scores, run=True, **predictions):
    """A line of rows `a`, `b`, ... (or the ids given) with these ROUGE-1 scores."""
    scores = dict(scores) if isinstance(scores, dict) else {chr(97 + i): score for i, score in enumerate(scores)}
    items = [SimpleNamespace(id=key, prediction=text) for key, text in predictions.items()]
    return Line(name, [{"id": key, "rouge1": score} for key, score in scores.items()], SimpleNamespace(predictions=items) if run else None)


def test_best_and_worst_are_row_indices_by_rouge_1():
    system = line("LoRA", [30, 10, 50, 40])
    assert (analysis.best(system, 2), analysis.worst(system, 2)) == ([2, 3], [1, 0])
    assert analysis.best(system, 9) == [2, 3, 0, 1]


def test_ties_are_settled_by_id_whatever_the_order_of_rows():
    for order in ("abc", "cab"):
        rows = [{"id": key, "rouge1": 5} for key in order]
        assert [rows[i]["id"] for i in analysis.best(Line("x", rows), 2)] == ["a", "b"]
        assert [rows[i]["id"] for i in analysis.worst(Line("x", rows), 2)] == ["a", "b"]


def test_disagreement_is_the_spread_of_the_runs_and_not_of_reference_lines():
    systems = [line("lead-3", [0, 100, 0], run=False), line("full", [10, 20, 30]), line("LoRA", [40, 25, 30]), line("QLoRA", [20, 60, 31])]
    assert analysis.disagreements(systems, 2) == [1, 0]  # spreads 30, 40, 1


def test_equal_spreads_are_settled_by_id():
    systems = [line(name, {"b": score, "a": score}) for name, score in [("full", 10), ("LoRA", 20)]]
    assert analysis.disagreements(systems, 1) == [1]


def test_disagreements_match_documents_by_id():
    shuffled = line("LoRA", {"c": 30, "a": 90, "b": 20})
    assert analysis.disagreements([line("full", [10, 20, 30]), shuffled], 1) == [0]


def test_the_documents_of_one_run_alone_come_by_their_ids():
    assert analysis.disagreements([line("full", [1, 2]), line("lead-3", [3, 4], run=False)]) == [0, 1]


# --- slices


def talk(key, people, count=4):
    return Example(key, "\n".join(f"P{i % people}: {'word ' * count}" for i in range(max(people, 2))), ("word",))


def test_slices_by_speakers_keep_n_and_give_no_interval_for_a_few():
    test = [talk(key, people) for key, people in zip("abcdefghi", [2, 2, 2, 2, 2, 3, 4, 5, 1], strict=True)]
    rows = analysis.slices([line("lead-3", range(9), run=False), line("full", range(9))], test, "speakers")
    assert [(row["system"], row["group"], row["n"], row["mean"]) for row in rows] == [
        ("full", "fewer than 2 speakers", 1, 8),
        ("full", "2 speakers", 5, 2),  # (0 + 1 + 2 + 3 + 4) / 5
        ("full", "3 speakers", 1, 5),
        ("full", "4 or more speakers", 2, 6.5),
    ]
    assert [row["interval"] for row in rows] == [None, bootstrap([0, 1, 2, 3, 4]), None, None]


def test_slices_by_length_are_thirds_by_words():
    test = [talk(key, 2, count) for key, count in zip("abcdef", [9, 1, 5, 2, 6, 8], strict=True)]  # two turns, each with its label
    rows = analysis.slices([line("full", [60, 10, 30, 20, 40, 50])], test, "length")
    assert [(row["group"], row["n"], row["mean"]) for row in rows] == [
        ("short: 4 to 6 words", 2, 15),
        ("middle: 12 to 14 words", 2, 35),
        ("long: 18 to 20 words", 2, 55),
    ]


@pytest.mark.parametrize("by", ["length", "speakers"])
def test_the_order_of_rows_and_of_documents_does_not_matter(by):
    test = [place(key, where) for key, where in zip("abcdefghijkl", [0, 1, 2, 3] * 3, strict=True)]
    scores = {example.id: 7.3 * number % 11 for number, example in enumerate(test)}
    shuffled = dict(reversed(scores.items()))
    assert analysis.slices([line("full", scores)], test, by) == analysis.slices([line("full", shuffled)], test[::-1], by)
    assert analysis.late([line("full", scores)], test) == analysis.late([line("full", shuffled)], test[::-1])


def test_another_way_to_group_is_refused_with_those_there_are():
    with pytest.raises(LabError, match="'topic': choose one of length, speakers"):
        analysis.slices([line("full", [1])], [talk("a", 2)], "topic")


def test_another_test_set_is_refused_by_its_first_document():
    with pytest.raises(LabError, match="full has no score for document 'b'"):
        analysis.slices([line("full", [1])], [talk("a", 2), talk("b", 2)], "speakers")


# --- position

TURNS = ("A: apples ripen", "B: boats sink", "A: cats sleep", "B: dogs bark")


def place(key, *where):
    """Four turns of three words, and one reference for each turn given, which says just that."""
    return Example(key, "\n".join(TURNS), tuple(TURNS[i].split(": ")[1] for i in where))


def test_the_important_part_stands_where_the_references_lean():
    assert [analysis.where_it_matters(place("d", turn)) for turn in range(4)] == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8])


def test_the_places_of_several_references_are_averaged():
    assert analysis.where_it_matters(place("d", 0, 3, 3)) == pytest.approx((1 / 8 + 7 / 8 + 7 / 8) / 3)


def test_places_are_measured_in_words():
    example = Example("d", "A: one long turn of eight words\nB: dogs", ("Dogs",))  # 7 words, then 2: the middle of the second is at 8/9
    assert analysis.where_it_matters(example) == pytest.approx(8 / 9)


def test_references_without_a_common_word_stand_nowhere():
    assert math.isnan(analysis.where_it_matters(Example("d", "\n".join(TURNS), ("Zebras graze",))))
    assert analysis.where_it_matters(Example("d", "\n".join(TURNS), ("Zebras graze", "dogs bark"))) == pytest.approx(7 / 8)


EARLY, LATE = [0, 0, 1, 1, 1, 0], [3, 2, 3, 3, 2, 2]
HALVES = [place(key, where) for key, where in zip("abcdefghijkl", EARLY + LATE, strict=True)]


def test_late_is_scored_against_early_with_the_difference():
    scores = [40, 42, 44, 40, 42, 44, 20, 22, 24, 20, 22, 24]
    systems = [line("lead-3", scores, run=False), line("whole document", scores, run=False), line("full", scores[::-1])]
    first, second = analysis.late(systems, HALVES)
    assert (first["system"], second["system"]) == ("lead-3", "full")
    assert (first["early"]["n"], first["early"]["mean"], first["late"]["mean"]) == (6, 42, 22)
    assert first["early"]["interval"] == bootstrap(scores[:6])
    assert (first["difference"].mean, second["difference"].mean) == (-20, 20)
    assert first["difference"].high < -15 and second["difference"].low > 15


def test_a_difference_is_said_only_where_the_interval_leaves_zero_out():
    same = [40, 20, 40, 20, 40, 20] * 2
    apart = [40] * 6 + [30] * 6
    systems = [line("lead-3", apart, run=False), line("LoRA", same), line("full", apart[::-1])]
    lower, higher, nothing = analysis.late_sentences(systems, HALVES)
    assert lower == "Lead-3 scores lower where the important part comes late: -10.0 [-10.0, -10.0] points of ROUGE-1 (n = 6 and 6)."
    assert higher.startswith("Full scores higher where the important part comes late: +10.0")
    assert nothing.startswith("No detectable difference") and "(n = 6 and 6): LoRA +0.0 [-" in nothing


def test_the_document_at_the_median_is_early():
    (row,) = analysis.late([line("full", [10, 20, 60])], [place("a", 0), place("b", 2), place("c", 3)])
    assert (row["early"]["n"], row["early"]["mean"], row["late"]["n"], row["late"]["mean"]) == (2, 15, 1, 60)


def test_a_few_documents_allow_no_sentence_about_a_difference():
    (sentence,) = analysis.late_sentences([line("full", [90, 10])], [place("a", 0), place("b", 3)])
    assert "too few documents" in sentence and "n = 1 and 1" in sentence


def test_documents_that_matter_in_one_place_cannot_be_split():
    test = [place("a", 1), place("b", 1)]
    assert analysis.late([line("full", [1, 2])], test) == []
    assert analysis.late_sentences([line("full", [1, 2])], test) == [
        "These documents cannot be split by where their important part stands."
    ]
    assert analysis.late([line("full", [1])], [Example("a", "A: b", ("Zebras",))]) == []


# --- unpaired difference


def test_an_unpaired_difference_is_that_of_the_means():
    gap = unpaired_difference([4, 6, 8], [1, 3])
    assert gap.mean == 4 and 1 <= gap.low < 4 < gap.high <= 7  # 6 - 2; at most 8 - 1, at least 4 - 3


def test_both_groups_are_resampled():
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0, 10, 200), rng.normal(0, 10, 100)
    expected = 1.96 * math.sqrt(ours.var() / 200 + theirs.var() / 100)
    gap = unpaired_difference(ours, theirs)
    assert (gap.high - gap.low) / 2 == pytest.approx(expected, rel=0.05)


def test_an_unpaired_interval_holds_the_truth_about_19_times_in_20():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        gap = unpaired_difference(rng.normal(3, 8, 40), rng.normal(0, 12, 30))
        held += gap.low <= 3 <= gap.high
    assert 180 <= held <= 198


def test_the_same_group_twice_is_not_paired():
    gap = unpaired_difference([10, 20, 30, 40], [10, 20, 30, 40])
    assert gap.mean == 0 and gap.low < -5 < 5 < gap.high


@pytest.mark.parametrize("groups", [([], [1.0]), ([1.0], []), ([math.nan], [1.0])])
def test_a_group_without_values_has_no_difference(groups):
    with pytest.raises(ValueError):
        unpaired_difference(*groups)


def test_one_document_per_group_gives_a_point():
    assert unpaired_difference([5], [3]) == Interval(2, 2, 2)


# --- profiles


def test_a_profile_tells_which_part_of_the_document_summaries_lean_on():
    documents = ["\n".join(TURNS)] * 2
    given = {"start": ["apples ripen", "apples ripen"], "both": ["apples ripen", "dogs bark"], "silent": ["", "zebras"]}
    assert analysis.leaning_profile(given, documents, bins=2) == {"start": [1, 0], "both": [0.5, 0.5], "silent": [0, 0]}
    assert analysis.leaning_profile(given, documents, bins=4)["both"] == [0.5, 0, 0, 0.5]


def test_several_references_of_a_document_are_averaged_first():
    given = {"references": [("apples ripen", "dogs bark", "dogs bark", "zebras"), ("apples ripen",)]}
    found = analysis.leaning_profile(given, ["\n".join(TURNS)] * 2, bins=2)["references"]
    assert found == pytest.approx([(1 / 3 + 1) / 2, (2 / 3 + 0) / 2])


def test_a_profile_needs_one_summary_per_document():
    with pytest.raises(LabError, match="full has 1 summaries for 2 documents"):
        analysis.leaning_profile({"full": ["x"]}, ["A: x", "B: y"])


def test_the_profile_of_runs_stands_beside_references_and_lead_3_matched_by_id():
    test = [place("a", 3), place("b", 0)]
    system = line("full", [1, 2], b="dogs bark", a="apples ripen")
    found = analysis.profile([line("lead-3", [1, 2], run=False), system], test, bins=4)
    assert list(found) == ["references", "lead-3", "full"]
    assert found["references"] == [0.5, 0, 0, 0.5] and found["full"] == [0.5, 0, 0, 0.5]
    assert found["lead-3"][3] < 0.2 and sum(found["lead-3"]) == pytest.approx(1)
    assert analysis.profile([line("full", [1], a="dogs bark")], test[:1], bins=4)["full"] == [0, 0, 0, 1]
    with pytest.raises(LabError, match="no prediction for document 'b'"):
        analysis.profile([line("full", [1], a="dogs bark")], test)


def test_grouped_bars_are_told_by_their_shares():
    picture = plots.grouped({"references": [0.25, 0.75], "full": [0.5, 0.5]}, ["first half", "second half"], "share")
    assert picture.png.startswith(b"\x89PNG")
    assert picture.alt == "share: first half, second half. references 25%, 75%; full fine-tuning 50%, 50%."
