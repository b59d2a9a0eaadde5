import math
from types import SimpleNamespace

import numpy as np
import pytest

from lab_utils import analysis, plots, tracing
from lab_utils.comparison import Line
from lab_utils.data import Example
from lab_utils.errors import LabError
from lab_utils.significance import Interval, bootstrap, unpaired_difference

# --- leaning

HELP = "Ann: Hello, Bob.\nBob: Call a plumber.\nAnn: Monday suits."


def test_a_summary_leans_on_the_turn_that_its_words_come_from():
    assert tracing.leaning("Bob called a plumber.", HELP) == [0, 1, 0]


def test_a_name_that_stands_everywhere_weighs_little_and_follows_the_best_match():
    # ann stands in two turns and counts 1/2; monday and suit 1 each; the pairs "ann suit" and "suit monday" stand nowhere.
    assert tracing.leaning("Ann suits Monday", HELP) == pytest.approx([0, 0, 2.5 / 4.5])


def test_each_sentence_looks_for_its_own_best_match():
    # "Ann greets": ann 1/2 to the first turn (as good as the third), greet and the pair nowhere.
    # "Monday suits": all three on the third turn.
    assert tracing.leaning("Ann greets. Monday suits.", HELP) == pytest.approx([0.5 / 5.5, 0, 3 / 5.5])


def test_a_rare_word_outweighs_common_ones_in_the_match():
    # apple and boat stand in three turns each (1/3), rare in one; the pairs "rare boat" and "boat apple" stand nowhere (1 each).
    # The third turn matches with 1 + 1/3 and takes rare and apple; the first, with 2/3, takes boat.
    document = "apple boat\napple boat\napple rare\nboat sail"
    assert tracing.leaning("Rare boat apple", document) == pytest.approx([(1 / 3) / (11 / 3), 0, (4 / 3) / (11 / 3), 0])


def test_what_stands_nowhere_rests_on_nothing():
    assert sum(tracing.leaning("Zebras graze", HELP)) == 0
    assert tracing.leaning("", HELP) == [0, 0, 0]
    assert tracing.leaning("anything", "") == []


def test_the_document_leans_on_all_of_itself():
    shares = tracing.leaning(HELP, HELP)
    assert sum(shares) == pytest.approx(1) and min(shares) > 0


def test_function_words_carry_no_leaning():
    assert sum(tracing.leaning("They don't have it, and she'll be there.", "A: They don't have it.\nB: She'll be there.")) == 0


def test_a_document_in_one_line_is_taken_by_sentences():
    assert tracing.leaning("A plumber is called.", "The tap drips. They call a plumber. It rains.")[1] > 0


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
    assert [tracing.where_it_matters(place("d", turn)) for turn in range(4)] == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8])


def test_the_places_of_several_references_are_averaged():
    assert tracing.where_it_matters(place("d", 0, 3, 3)) == pytest.approx((1 / 8 + 7 / 8 + 7 / 8) / 3)


def test_places_are_measured_in_words():
    example = Example("d", "A: one long turn of eight words\nB: dogs", ("Dogs",))  # 7 words, then 2: the middle of the second is at 8/9
    assert tracing.where_it_matters(example) == pytest.approx(8 / 9)


def test_references_without_a_common_word_stand_nowhere():
    assert math.isnan(tracing.where_it_matters(Example("d", "\n".join(TURNS), ("Zebras graze",))))
    assert tracing.where_it_matters(Example("d", "\n".join(TURNS), ("Zebras graze", "dogs bark"))) == pytest.approx(7 / 8)


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
    assert tracing.leaning_profile(given, documents, bins=2) == {"start": [1, 0], "both": [0.5, 0.5], "silent": [0, 0]}
    assert tracing.leaning_profile(given, documents, bins=4)["both"] == [0.5, 0, 0, 0.5]


def test_several_references_of_a_document_are_averaged_first():
    given = {"references": [("apples ripen", "dogs bark", "dogs bark", "zebras"), ("apples ripen",)]}
    found = tracing.leaning_profile(given, ["\n".join(TURNS)] * 2, bins=2)["references"]
    assert found == pytest.approx([(1 / 3 + 1) / 2, (2 / 3 + 0) / 2])


def test_a_profile_needs_one_summary_per_document():
    with pytest.raises(LabError, match="full has 1 summaries for 2 documents"):
        tracing.leaning_profile({"full": ["x"]}, ["A: x", "B: y"])


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
