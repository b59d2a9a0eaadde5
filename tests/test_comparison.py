import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lab_utils import comparison, metrics
from lab_utils.errors import LabError
from lab_utils.generation import Prediction
from lab_utils.runs import Finished

# ROUGE-1 of k of the four words of REFERENCE: precision 1, recall k/4, so F1 = 2k/(k + 4).
WORDS = "harbour ship storm night"
F1 = {0: 0.0, 1: 40.0, 2: 200 / 3, 3: 600 / 7, 4: 100.0}


def finished(method, right_words, references=((WORDS,),), **record):
    """A run whose answer to document i has the first `right_words[i]` words of the reference."""
    references = list(references) * len(right_words) if len(references) == 1 else references
    predictions = [
        Prediction(f"d{i}", " ".join(WORDS.split()[:count]) or "other", tuple(references[i]), count, True)
        for i, count in enumerate(right_words)
    ]
    common = {
        "method": method,
        "model": {"fingerprint": "m", "parameters": 1000, "trainable_parameters": 0, "checkpoint_mb": 0.0},
        "data": {"fingerprint": "d", "test": len(right_words)},
        "config": {"recipe": {"prompt": {"instruction": "Sum."}, "lengths": {"document_tokens": 9}, "generation": {"max_new_tokens": 8}}},
        "generation": {"stopped_share": 0.75, "peak_memory_gb": 0.5},
    }
    return Finished(method, common | record, predictions, Path(method))


def compare(*runs, **options):
    return comparison.lines(runs, **options)


# --- paired differences


def test_differences_are_paired_later_minus_earlier_with_wins_ties_and_losses():
    (difference,) = comparison.differences(compare(finished("zero_shot", [4, 2, 0, 1]), finished("lora", [4, 4, 2, 0])))
    gaps = [0, 100 - F1[2], F1[2] - 0, 0 - F1[1]]
    assert difference.name == "LoRA against zero-shot"
    assert difference.interval.mean == pytest.approx(sum(gaps) / 4)
    assert (difference.wins, difference.ties, difference.losses) == (2, 1, 1)
    assert min(gaps) <= difference.interval.low < difference.interval.mean < difference.interval.high <= max(gaps)


def test_the_same_gap_on_every_document_leaves_no_doubt_however_much_the_documents_differ():
    (difference,) = comparison.differences(compare(finished("zero_shot", [0, 2, 0, 2]), finished("full", [1, 2, 1, 2])))
    doubtful = difference.interval.high - difference.interval.low
    (steady,) = comparison.differences(compare(finished("zero_shot", [0, 0, 0, 0]), finished("full", [1, 1, 1, 1])))
    assert (steady.interval.low, steady.interval.high) == (pytest.approx(40), pytest.approx(40))
    assert doubtful > 10


def test_every_pair_of_runs_is_compared_once_and_no_reference_line():
    systems = compare(finished("zero_shot", [1]), finished("full", [2]), finished("lora", [3]), documents={"d0": WORDS})
    assert [difference.name for difference in comparison.differences(systems)] == [
        "full fine-tuning against zero-shot",
        "LoRA against zero-shot",
        "LoRA against full fine-tuning",
    ]


def test_the_p_value_is_that_of_all_sign_flips():
    """Gaps 40 and 40 on two documents: of the 4 sign patterns, 2 have a mean as far from zero."""
    (difference,) = comparison.differences(compare(finished("zero_shot", [0, 0]), finished("full", [1, 1])))
    assert difference.p == pytest.approx(2 / 4) and difference.p_holm == pytest.approx(2 / 4)


def test_p_values_are_corrected_over_the_pairs_that_are_compared_together():
    """Six documents: zero-shot 0, both others 40 everywhere. The first two pairs have p = 2/64, equal runs 1; Holm triples the smallest."""
    same = [1] * 6
    found = comparison.differences(compare(finished("zero_shot", [0] * 6), finished("full", same), finished("lora", same)))
    assert [d.p for d in found] == pytest.approx([2 / 64, 2 / 64, 1])
    assert [d.p_holm for d in found] == pytest.approx([6 / 64, 6 / 64, 1])
    assert not any(d.detected for d in found) and found[0].interval.excludes_zero()


def test_more_spread_and_fewer_documents_need_a_larger_difference_to_detect():
    def detectable(later):
        (difference,) = comparison.differences(compare(finished("zero_shot", [0] * len(later)), finished("full", later)))
        return difference.detectable

    assert detectable([1, 1, 1, 1]) == pytest.approx(0)
    assert detectable([0, 4, 0, 4]) > detectable([0, 4, 0, 4] * 5) > 0


# --- sentences


def sentence(earlier, later):
    (difference,) = comparison.differences(compare(finished("zero_shot", earlier), finished("lora", later)))
    return difference.sentence()


def test_no_detectable_difference_is_said_in_words_with_its_interval_and_what_might_be_missed():
    said = sentence([4, 0, 4, 0], [0, 4, 0, 4])
    assert said.startswith(
        "LoRA against zero-shot: no detectable difference (+0.0 points of ROUGE-1, 95% interval -100.0 to +100.0, n = 4, p = 1.000)"
    )
    assert "a true difference below " in said and "missed more than once in five times" in said


def test_equal_answers_are_no_detectable_difference():
    assert "no detectable difference (+0.0 points" in sentence([1, 2, 3], [1, 2, 3])


def test_a_clear_difference_is_said_with_its_direction_and_size():
    """Twelve documents, the same gap on each: 2 of 4,096 sign patterns."""
    numbers = "(95% interval {0}40.0 to {0}40.0, n = 12, p < 0.001)"
    assert sentence([0] * 12, [1] * 12) == f"LoRA against zero-shot: better by 40.0 points of ROUGE-1 {numbers.format('+')}."
    assert sentence([1] * 12, [0] * 12) == f"LoRA against zero-shot: worse by 40.0 points of ROUGE-1 {numbers.format('-')}."


def test_an_interval_without_zero_is_not_enough_where_the_test_has_too_few_documents():
    """Three documents have 8 sign patterns: no p below 2/8, whatever the gaps."""
    said = sentence([0, 0, 0], [4, 4, 4])
    assert "no detectable difference (+100.0 points" in said and "p = 0.250" in said


def test_the_sentence_names_the_correction_where_several_pairs_are_compared():
    systems = compare(*(finished(method, [0, 1]) for method in ("zero_shot", "full", "lora")))
    assert all("with Holm's correction over 3 pairs" in difference.sentence() for difference in comparison.differences(systems))
    assert "Holm" not in sentence([0, 1], [1, 0])


EIGHT = {f"d{i}": "harbour" for i in range(8)}


def test_findings_hold_every_pair_and_the_best_run_against_each_kind_of_reference_line():
    references = ((WORDS, WORDS),)
    systems = compare(finished("zero_shot", [0, 1] * 4, references), finished("lora", [4] * 8, references), documents=EIGHT)
    said = comparison.findings(systems)
    assert len(said) == 3 and said[0].startswith("LoRA against zero-shot: better by 80.0 points")
    assert said[1].startswith("The highest mean, LoRA, is above the best copy of the document, 'lead-3' (+60.0 points")
    assert said[2].startswith(
        "The highest mean, LoRA, is not detectably different from the line 'one reference against the others' (+0.0 points"
    )


@pytest.mark.parametrize("copied, verdict", [("x", "above"), (WORDS, "below")])
def test_the_verdict_against_copying_follows_the_test(copied, verdict):
    (said,) = comparison.findings(compare(finished("zero_shot", [2] * 8), documents=dict.fromkeys(EIGHT, copied)))
    assert f"zero-shot, is {verdict} the best copy of the document, 'lead-3'" in said
    (doubtful,) = comparison.findings(compare(finished("zero_shot", [2] * 2), documents=dict.fromkeys(EIGHT, copied)))
    assert "is not detectably different from the best copy" in doubtful


def test_the_best_of_the_copies_is_the_one_to_beat():
    """The first three turns share nothing with the reference, the three longest do."""
    document = "a\nb\nc\nharbour ship\nstorm and night\nharbour storm"
    (said,) = comparison.findings(compare(finished("zero_shot", [0] * 8), documents=dict.fromkeys(EIGHT, document)))
    assert "is below the best copy of the document, 'longest-3'" in said


def test_what_the_base_has_seen_is_a_finding():
    config = finished("zero_shot", [1]).record["config"]["recipe"]
    seen = config | {"model": {"source": "google/flan-t5-base"}, "data": {"source": "knkarthick/samsum"}}
    said = comparison.findings(compare(finished("zero_shot", [1], config={"recipe": seen})))
    assert said[-1].startswith("Contamination: SAMSum")
    fresh = seen | {"data": {"source": "knkarthick/dialogsum"}}
    assert not any("Contamination" in s for s in comparison.findings(compare(finished("zero_shot", [1], config={"recipe": fresh}))))


# --- what is compared


def test_nothing_to_compare_is_one_sentence():
    with pytest.raises(LabError, match="No finished run") as caught:
        comparison.lines([])
    assert "lab run" in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_whose_predictions_are_lost_is_refused_in_one_sentence():
    with pytest.raises(LabError, match=r"no predictions of zero_shot: its predictions\.jsonl is empty"):
        comparison.lines([finished("zero_shot", [])])


def test_runs_that_differ_are_refused_with_every_reason():
    other = finished("lora", [1], data={"fingerprint": "another", "test": 1}, model={"fingerprint": "another"})
    with pytest.raises(LabError) as caught:
        compare(finished("zero_shot", [1]), other)
    text = str(caught.value)
    assert "lora used another base model than zero_shot; lora used another test set than zero_shot" in text and "\n" not in text


@pytest.mark.parametrize("damage", ["another order", "a lost line", "another document"])
def test_predictions_of_other_documents_are_refused(damage):
    run = finished("lora", [1, 2, 3])
    changed = {
        "another order": run.predictions[::-1],
        "a lost line": run.predictions[:-1],
        "another document": [*run.predictions[:-1], replace(run.predictions[-1], id="d9")],
    }[damage]
    with pytest.raises(LabError, match="lora"):
        comparison.differences(compare(finished("zero_shot", [1, 2, 3]), replace(run, predictions=changed)))


def test_lead_3_is_the_first_three_turns_of_each_document():
    documents = {"d0": "harbour\n\nship\nstorm\nnight", "d1": "night"}
    lead = compare(finished("zero_shot", [1, 1]), documents=documents)[0]
    assert (lead.name, lead.run) == ("lead-3", None)
    assert lead.values("rouge1") == [pytest.approx(F1[3]), pytest.approx(F1[1])]


def test_the_copies_stand_before_the_runs_and_score_by_the_same_measure():
    """Longest-3 leaves out the one-word turn 'x'; the whole document has five words, four of them right."""
    documents = {"d0": "x\nharbour a\nship b\nstorm c"}
    systems = compare(finished("zero_shot", [1]), documents=documents)
    assert [s.name for s in systems] == ["lead-3", "longest-3", "whole document", "zero-shot"]
    found = [s.values("rouge1")[0] for s in systems[:3]]
    assert found == pytest.approx([100 * 2 * 2 / (5 + 4), 100 * 2 * 3 / (6 + 4), 100 * 2 * 3 / (7 + 4)])


def test_a_document_that_is_missing_leaves_out_all_copies_rather_than_scoring_other_documents():
    assert [s.name for s in compare(finished("zero_shot", [1, 1]), documents={"d0": WORDS})] == ["zero-shot"]


def test_without_documents_there_is_no_lead_line():
    assert [line.name for line in compare(finished("zero_shot", [1]))] == ["zero-shot"]


def test_one_reference_against_the_others_by_hand():
    """Two equal references and one with nothing in common: (50 + 50 + 0) / 3, and (100 + 100 + 0) / 3 for the best other."""
    people = compare(finished("zero_shot", [1, 1], [("a ship", "a ship", "no word"), ("one", "one", "one")]))[-1]
    assert (people.name, people.run) == ("one reference against the others", None)
    assert people.values("rouge1") == [pytest.approx(100 / 3), pytest.approx(100)]
    assert people.values("best_rouge1") == [pytest.approx(200 / 3), pytest.approx(100)]
    assert [row["id"] for row in people.rows] == ["d0", "d1"]


def test_a_single_reference_anywhere_leaves_out_the_line_of_references():
    names = [line.name for line in compare(finished("zero_shot", [1, 1], [("a", "b"), ("c",)]))]
    assert names == ["zero-shot"]


# --- the table


def rows(*runs, **options):
    return {row["system"]: row for row in comparison.table(compare(*runs, **options))}


def test_scores_stand_as_mean_and_interval_in_points():
    row = rows(finished("zero_shot", [1, 1], [("harbour", WORDS)] * 2))["zero-shot"]
    assert row["ROUGE-1"] == "70.0 [70.0, 70.0]"
    assert row["ROUGE-1, best reference"] == "100.0 [100.0, 100.0]"
    assert row["ROUGE-2"] == "0.0 [0.0, 0.0]"


def test_reference_lines_cost_nothing_and_zero_shot_trains_nothing():
    found = rows(finished("zero_shot", [1]), documents={"d0": WORDS})
    assert {found["lead-3"][cost] for cost in comparison.COSTS} == {None}
    assert [found["zero-shot"][cost] for cost in comparison.COSTS] == ["0%", "0", "0.5", "0", "75%"]


def test_an_adapters_share_counts_the_adapter_into_the_whole_and_full_training_is_everything():
    training = {"seconds": 90.4, "peak_memory_gb": 2.34}
    model = {"fingerprint": "m", "parameters": 990, "trainable_parameters": 10, "checkpoint_mb": 4.6}
    lora = finished("lora", [1], training=training, model=model)
    full = finished("full", [1], training=training, model=model | {"trainable_parameters": 990})
    found = rows(full, lora)
    assert [found["LoRA"][cost] for cost in comparison.COSTS] == ["1.00%", "90", "2.3", "5", "75%"]
    assert found["full fine-tuning"]["trained share"] == "100.00%"


def test_every_row_has_the_same_columns():
    found = rows(finished("zero_shot", [1], [("a", "b")]), documents={"d0": WORDS})
    assert len(found) == 5 and len({tuple(row) for row in found.values()}) == 1


# --- time


@pytest.mark.course
def test_four_systems_on_500_documents_with_3_references_are_compared_within_a_minute():
    """Documents of 130 words and summaries of 30, as dialogues have; with every interval, test and companion."""
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(3000)]

    def text(count):
        return " ".join(draw.choices(vocabulary, k=count)) + "."

    documents = {f"d{i}": "\n".join(f"Ann: {text(13)}" for _ in range(10)) for i in range(500)}
    references = [tuple(text(30) for _ in range(3)) for _ in range(500)]
    runs = [finished(method, [1] * 500, references) for method in ("zero_shot", "full", "lora", "qlora")]
    runs = [replace(run, predictions=[replace(p, prediction=text(30)) for p in run.predictions]) for run in runs]
    start = time.perf_counter()
    systems = comparison.lines(runs, documents)
    comparison.findings(systems), comparison.table(systems), [metrics.summarize(s.rows) for s in systems]
    assert len(systems) == 8 and time.perf_counter() - start < 60
