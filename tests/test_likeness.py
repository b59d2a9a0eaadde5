"""Which submissions are more alike than separate work: copies are found, and what honest work shares is not."""

import copy
import time
from dataclasses import replace

import pytest
from classroom import copied, honest

from lab_utils import sheets
from lab_utils.submissions.likeness import alike, normalised

FILE = "title: Ranks\nrecipe: tiny-causal\nhand_out: [1, 3]\ncommon: {test_examples: 4}\n"

LONG = '''
def lora_forward(x, W, A, B, alpha):
    """My answer."""
    rank = A.shape[0]
    low = x @ A.T  # down
    high = low @ B.T
    scale = alpha / rank
    frozen = x @ W.T
    if scale == 0:
        return frozen
    return frozen + scale * high


verdict = check.lora_forward(lora_forward)
verdict
'''
RENAMED = LONG.replace("low", "down").replace("high", "up").replace("  # down", "").replace("My answer", "What I think")
SECOND, THIRD = LONG.replace("lora_forward", "merge"), LONG.replace("lora_forward", "count_lora")


@pytest.fixture(scope="module")
def same(load_assignment):
    return load_assignment(FILE)


@pytest.fixture(scope="module")
def varying(load_assignment):
    return load_assignment(FILE + "vary: {salt: cinnamon, seed: 100000}\n")


def with_answers(assignment, student, **answers):
    return replace(honest(assignment, student).submission(), answers=answers)


def test_honest_students_with_the_same_settings_are_not_alike(same):
    submissions = [honest(same, student).submission() for student in ("ada", "grace", "alan")]
    assert submissions[0].predictions == submissions[1].predictions
    assert alike(submissions) == []


def test_a_record_that_was_copied_is_found_and_said_without_blame(same):
    work = honest(same, "ada")
    [pair] = alike([work.submission(), honest(same, "alan").submission(), copied(work, "grace").submission()])
    assert {pair.first, pair.second} == {"ada", "grace"} and pair.score > 0.9
    assert "the same start" in pair.says and "copied" not in pair.says


def test_runs_that_started_in_the_same_second_but_took_another_time_are_separate(same):
    submissions = [honest(same, student, minute=7).submission() for student in ("ada", "grace")]
    for record in submissions[1].records.values():
        record["generation"]["seconds"] += 0.1
    assert alike(submissions) == []


def test_records_without_a_start_are_not_held_against_each_other(same):
    submissions = [honest(same, student, minute=7).submission() for student in ("ada", "grace")]
    for submission in submissions:
        for record in submission.records.values():
            del record["started"]
    assert alike(submissions) == []


def test_the_same_summaries_under_other_settings_are_found(varying):
    ada, grace, alan = (honest(varying, student) for student in ("ada", "grace", "alan"))
    assert alike([ada.submission(), grace.submission(), alan.submission()]) == []
    grace.predictions = copy.deepcopy(ada.predictions)
    [pair] = alike([ada.submission(), grace.submission(), alan.submission()])
    assert "4 of 4 summaries of LoRA are the same though the settings differ" in pair.says


def test_summaries_that_training_did_not_change_prove_nothing(varying):
    submissions = [honest(varying, student).submission() for student in ("ada", "grace")]
    for submission in submissions:
        submission.predictions["zero_shot"] = submission.predictions["lora"] = submissions[0].predictions["zero_shot"]
    assert alike(submissions) == []


def test_one_common_answer_is_no_sign_and_several_verbatim_ones_are(same):
    one = [with_answers(same, "ada", lora_forward=LONG), with_answers(same, "grace", lora_forward=LONG)]
    assert alike(one) == []
    two = [with_answers(same, student, lora_forward=LONG, merge=SECOND) for student in ("ada", "grace")]
    [pair] = alike(two)
    assert "lora_forward is the same word for word" in pair.says and "merge" in pair.says


def test_renamed_variables_and_other_comments_do_not_hide_a_copy(same):
    assert normalised(RENAMED) == normalised(LONG) and RENAMED != LONG
    answers = {"lora_forward": LONG, "merge": SECOND, "count_lora": THIRD}
    renamed = {name: code.replace("low", "down").replace("scale", "factor") for name, code in answers.items()}
    [pair] = alike([with_answers(same, "ada", **answers), with_answers(same, "grace", **renamed)])
    assert "but for names and comments" in pair.says


def test_another_way_to_compute_is_another_answer():
    assert normalised(LONG.replace("alpha / rank", "alpha * rank")) != normalised(LONG)
    assert normalised(LONG.replace("x @ A.T", "A @ x.T")) != normalised(LONG)
    assert normalised(LONG.replace("scale == 0", "scale == 1")) != normalised(LONG)


def test_names_that_swap_places_are_seen():
    assert normalised(LONG.replace("frozen + scale * high", "high + scale * frozen")) != normalised(LONG)


NESTED = ["(" * 5000, "-" * 50_000 + "1", "1+" * 9000 + "1"]


@pytest.mark.parametrize(
    "code", ["", "x = 1", "def f(x):\n    return ...  # your code\n" + LONG, "%timeit f()", "a\0b", "\ud800" * 80, *NESTED]
)
def test_gaps_short_answers_and_what_is_no_python_say_nothing(code):
    assert normalised(code) is None


def test_what_much_of_the_class_answers_is_common(same):
    work = honest(same, "ada").submission()
    answers = {"lora_forward": LONG, "merge": SECOND, "count_lora": THIRD}
    class_ = [replace(work, student=f"s{i}", records={}, predictions={}, answers=answers) for i in range(5)]
    assert alike(class_) == [] and alike(class_[:2])


def test_two_rating_sheets_with_the_same_marks_are_found_whoever_is_the_rater(same):
    def sheet(rater, change=""):
        lines = [",".join(sheets.COLUMNS)]
        lines += [f"{rater},rate,d{i},s{i:012x},,{1 + i % 5},{change or 1 + i % 4},3,4,none," for i in range(12)]
        return "\n".join(lines) + "\n"

    work = honest(same, "ada").submission()
    rated = [replace(work, student=s, records={}, predictions={}, answers={}, ratings={f"{s}.csv": sheet(s)}) for s in ("ada", "grace")]
    rated.append(replace(rated[0], student="alan", ratings={"alan.csv": sheet("alan", change="5")}))
    [pair] = alike(rated)
    assert {pair.first, pair.second} == {"ada", "grace"} and "12 answers on a rating sheet" in pair.says


@pytest.mark.parametrize("sheet", ["", "\0", "x" * 200_000, '"unclosed', "rater,task\n" * 20, "\ud800,\n" * 20])
def test_what_is_no_rating_sheet_says_nothing(same, sheet):
    work = honest(same, "ada").submission()
    assert alike([replace(work, student=s, records={}, predictions={}, answers={}, ratings={"r.csv": sheet}) for s in "ab"]) == []


def test_two_submissions_of_one_student_are_no_pair(same):
    work = honest(same, "ada").submission()
    assert alike([work, replace(work, student=" ADA ")]) == []


@pytest.mark.parametrize("value", [None, 3, [], {}, "x", float("nan"), 10**400])
def test_odd_values_in_records_stop_nothing(same, value):
    submissions = [honest(same, student).submission() for student in ("ada", "grace")]
    for submission in submissions:
        submission.records["lora"] |= {"started": value, "training": value, "generation": value, "config": value}
    assert alike(submissions) == []


def test_a_class_of_two_hundred_takes_about_a_second(varying):
    work = honest(varying, "ada").submission()
    class_ = []
    for i in range(200):
        rows = [
            row | {"prediction": f"{row['prediction']} {i}", "id": f"{row['id']} {n}"}
            for n in range(15)
            for row in work.predictions["lora"]
        ]
        answers = {name: LONG.replace("rank", f"rank + {i}") for name in ("lora_forward", "merge", "count_lora")}
        class_.append(replace(work, student=f"s{i:03d}", records={}, predictions={"lora": rows, "full": rows}, answers=answers))
    started = time.process_time()
    assert alike(class_) == []
    assert time.process_time() - started < 5
