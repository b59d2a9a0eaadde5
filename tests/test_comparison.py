from dataclasses import replace
from pathlib import Path

import pytest

from lab_utils import comparison
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


def test_another_metric_can_be_compared():
    references = (("night storm", WORDS),)
    systems = compare(finished("zero_shot", [0], references), finished("lora", [4], references))
    assert comparison.differences(systems, "best_rouge1")[0].interval.mean == pytest.approx(100)
    assert comparison.differences(systems)[0].interval.mean == pytest.approx((100 + F1[2]) / 2)


# --- sentences


def sentence(earlier, later):
    (difference,) = comparison.differences(compare(finished("zero_shot", earlier), finished("lora", later)))
    return difference.sentence()


def test_no_detectable_difference_is_said_in_words_with_its_interval():
    said = sentence([4, 0, 4, 0], [0, 4, 0, 4])
    assert said.startswith("LoRA against zero-shot: no detectable difference at n = 4 (+0.0 points")
    assert "95% interval -100.0 to +100.0" in said


def test_equal_answers_are_no_detectable_difference():
    assert "no detectable difference at n = 3 (+0.0 points" in sentence([1, 2, 3], [1, 2, 3])


def test_a_clear_difference_is_said_with_its_direction_and_size():
    assert sentence([0, 0], [1, 1]) == "LoRA against zero-shot: better by 40.0 points of ROUGE-1 (95% interval +40.0 to +40.0, n = 2)."
    assert sentence([1, 1], [0, 0]) == "LoRA against zero-shot: worse by 40.0 points of ROUGE-1 (95% interval -40.0 to -40.0, n = 2)."


def test_findings_hold_every_pair_and_the_best_run_against_each_reference_line():
    systems = compare(finished("zero_shot", [0, 1]), finished("lora", [4, 4]), documents={"d0": "harbour", "d1": "harbour"})
    said = comparison.findings(systems)
    assert len(said) == 2 and said[0].startswith("LoRA against zero-shot: better by 80.0 points")
    assert said[1] == "The highest mean, LoRA, is above the line 'lead-3' (+60.0 points, 95% interval +60.0 to +60.0)."


@pytest.mark.parametrize(
    "lead_words, verdict", [(["x", "x"], "above"), ([WORDS, WORDS], "below"), ([WORDS, "x"], "not detectably different from")]
)
def test_the_verdict_against_a_reference_line_follows_the_interval(lead_words, verdict):
    documents = {f"d{i}": words for i, words in enumerate(lead_words)}
    (said,) = comparison.findings(compare(finished("zero_shot", [2, 2]), documents=documents))
    assert f"zero-shot, is {verdict} the line 'lead-3'" in said


# --- what is compared


def test_nothing_to_compare_is_one_sentence():
    with pytest.raises(LabError, match="No finished run") as caught:
        comparison.lines([])
    assert "lab run" in str(caught.value) and "\n" not in str(caught.value)


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
    assert len(found) == 3 and len({tuple(row) for row in found.values()}) == 1
