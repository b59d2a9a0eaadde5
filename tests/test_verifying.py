"""What a submission's records say, held against each other, the data and the assignment."""

import copy
import json
import random
from dataclasses import replace

import pytest
from classroom import BASE, copied, edited_scores, half_finished, honest, notebook, other_test_set, try_out

from lab_utils import config, metrics
from lab_utils.generation import Prediction
from lab_utils.submissions import executed, expectations, records, verifying
from lab_utils.submissions.verifying import CHECKS, FINE, LOOK, WRONG, verify

FILE = """
title: Ranks
recipe: tiny-causal
common: {seed: 3, test_examples: 4}
notebooks: {03: {rank: 2}}
limits: {minutes: 30, memory_gb: 2, upload_mb: 5, disk_gb: 1}
"""


@pytest.fixture(scope="module")
def assignment(load_assignment):
    return load_assignment(FILE)


@pytest.fixture(scope="module")
def made(assignment):
    return honest(assignment)


@pytest.fixture
def work(made):
    return copy.deepcopy(made)


def found(findings, check, state=None):
    return [finding for finding in findings if finding.check == check and state in (None, finding.state)]


def said(findings, check, state):
    """The sentences of a check's findings in this state; there must be one."""
    sentences = [finding.says for finding in found(findings, check, state)]
    assert sentences, [str(finding) for finding in found(findings, check)]
    return " ".join(sentences)


def test_honest_work_is_fine_in_every_check(work, assignment):
    findings = verify(work.submission(), assignment)
    assert [finding for finding in findings if finding.state != FINE] == []
    assert list(dict.fromkeys(finding.check for finding in findings)) == list(CHECKS)


def test_every_finding_is_a_whole_sentence(work, assignment):
    for finding in verify(half_finished(edited_scores(work)).submission(), assignment):
        assert finding.says[0].isupper() or finding.says[0].isdigit(), finding
        assert finding.says.endswith("."), finding


# --- what was handed in -----------------------------------------------------------------------------------------------------------


def test_what_could_not_be_read_is_passed_on(work, assignment):
    findings = verify(work.submission(problems=["run.json of lora was changed after it was packed."]), assignment)
    assert said(findings, "files", LOOK) == "run.json of lora was changed after it was packed."


def test_an_unfinished_run_is_named_with_its_reason(work, assignment):
    findings = verify(half_finished(work).submission(), assignment)
    assert "QLoRA did not finish (failed): OutOfMemoryError: the GPU is full." in said(findings, "completeness", WRONG)
    assert not [finding for finding in findings if finding.method == "qlora" and finding.check != "completeness"]


def test_missing_records_summaries_notebooks_and_answers_are_named(work, assignment):
    del work.records["full"], work.predictions["full"], work.predictions["lora"], work.notebooks["03_lora"]
    sentences = said(verify(work.submission(), assignment), "completeness", WRONG)
    assert "record of full fine-tuning is missing" in sentences and "summaries of LoRA are missing" in sentences
    assert "notebooks are missing: 03_lora." in sentences and "answers to these exercises are missing: break_even" in sentences


def test_what_the_assignment_does_not_require_may_be_missing(work, load_assignment):
    assignment = load_assignment(FILE + "required: []\n")
    work.records, work.predictions, work.notebooks = {}, {}, {}
    findings = verify(work.submission(), assignment)
    assert not [finding for finding in findings if finding.state == WRONG]
    assert found(findings, "completeness", FINE)


def test_a_method_that_was_not_assigned_is_for_a_person_to_look_at(work, load_assignment):
    shorter = load_assignment(FILE.replace("tiny-causal", "tiny-causal\nhand_out: [1, 3]"))
    work.notebooks = {name: one for name, one in work.notebooks.items() if name[:2] in ("01", "03")}
    findings = verify(work.submission(), shorter)
    assert {finding.method for finding in found(findings, "completeness", LOOK)} == {"full", "qlora"}
    assert not [finding for finding in findings if finding.state == WRONG]


@pytest.mark.parametrize("what", ["assignment", "student"])
def test_a_record_of_another_assignment_or_student_is_wrong_and_one_without_a_name_is_looked_at(work, assignment, what):
    work.records["full"][what], work.records["lora"][what] = "somebody else's", None
    findings = verify(work.submission(), assignment)
    assert f"names another {what}: somebody else's instead of {getattr(work, what)}" in said(findings, "names", WRONG)
    assert said(findings, "names", LOOK) == f"The record of LoRA names no {what}."


def test_a_students_id_counts_however_it_was_typed(work, assignment):
    work.records["full"]["student"] = " ADA "
    assert not found(verify(work.submission(), assignment), "names", WRONG)


# --- settings ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "section, name, value, words",
    [
        ("lora", "rank", 8, "rank was 8 (should be 2)"),
        ("lora", "learning_rate", 0.5, "learning_rate was 0.5 (should be 0.01)"),
        ("prompt", "instruction", "Be brief.", "prompt instruction was Be brief. (should be Summarize.)"),
        ("generation", "max_new_tokens", 99, "max_new_tokens was 99 (should be 8)"),
        ("data", "data_seed", 7, "data_seed was 7 (should be 0)"),
        ("model", "precision", "float16", "model precision was float16 (should be auto)"),
        ("lora", "target_modules", ["q_proj"], "target_modules was ['q_proj'] (should be all-linear)"),
    ],
)
def test_a_setting_that_is_not_as_assigned_is_named_with_both_values(work, assignment, section, name, value, words):
    work.records["lora"]["config"]["recipe"][section][name] = value
    findings = verify(work.submission(), assignment)
    assert words in said(findings, "settings", WRONG)
    assert {finding.method for finding in found(findings, "settings", WRONG)} == {"lora"}


@pytest.mark.parametrize(
    "section, name, value", [("lora", "micro_batch", 1), ("generation", "generation_batch", 1), ("model", "label", "mine")]
)
def test_settings_that_change_time_and_memory_only_do_not_count(work, assignment, section, name, value):
    work.records["lora"]["config"]["recipe"][section][name] = value
    assert not found(verify(work.submission(), assignment), "settings", WRONG)


def test_sections_of_other_methods_do_not_count(work, assignment):
    work.records["lora"]["config"]["recipe"]["full"]["learning_rate"] = 9
    assert not found(verify(work.submission(), assignment), "settings", WRONG)


def test_a_setting_that_an_older_record_lacks_is_for_a_person_to_look_at(work, assignment):
    del work.records["lora"]["config"]["recipe"]["lora"]["dora"]
    findings = verify(work.submission(), assignment)
    assert "dora is not recorded (should be no)" in said(findings, "settings", LOOK)
    assert not found(findings, "settings", WRONG)


@pytest.mark.parametrize("recorded", ["everyday", "/home/ada/everyday/", "C:\\Users\\ada\\everyday"])
def test_of_a_folder_the_last_part_is_compared(work, assignment, recorded):
    work.records["lora"]["config"]["recipe"]["data"]["source"] = recorded
    assert not found(verify(work.submission(), assignment), "settings", WRONG)


def test_values_that_vary_are_those_of_the_student(load_assignment):
    varying = load_assignment(FILE.replace("seed: 3, ", "") + "vary: {salt: cinnamon, seed: 1000}\n")
    work = honest(varying, "ada")
    assert not [finding for finding in verify(work.submission(), varying) if finding.state == WRONG]
    other = copied(work, "grace")
    assert "seed was" in said(verify(other.submission(), varying), "settings", WRONG)


# --- test set and base model -------------------------------------------------------------------------------------------------------


def test_another_test_set_is_wrong_though_its_scores_are_right(work, assignment):
    findings = verify(other_test_set(work).submission(), assignment)
    assert "LoRA has another test set" in said(findings, "test set", WRONG)
    assert not found(findings, "scores", WRONG)
    assert "another test set" in said(findings, "baseline", WRONG)


def test_changed_references_under_the_right_fingerprint_are_named(work, assignment):
    work.predictions["lora"][1]["references"] = ["Something easy."]
    name = work.predictions["lora"][1]["id"]
    assert f"the references of {name} were changed" in said(verify(work.submission(), assignment), "test set", WRONG)


@pytest.mark.parametrize(
    "change, words", [(lambda rows: rows.pop(), "3 summaries for 4 documents"), (lambda rows: rows.reverse(), "should stand")]
)
def test_summaries_that_are_missing_or_in_another_order_are_named(work, assignment, change, words):
    change(work.predictions["lora"])
    assert words in said(verify(work.submission(), assignment), "test set", WRONG)


def test_another_base_model_in_one_method_is_wrong(work, assignment):
    work.records["lora"]["model"]["fingerprint"] = "another"
    findings = verify(work.submission(), assignment)
    assert "did not start from the same base model" in said(findings, "base model", WRONG)
    assert "another base model" in said(findings, "baseline", WRONG)


def test_a_class_shows_who_has_another_base_model(work, assignment):
    for record in work.records.values():
        record["model"]["fingerprint"] = "another"
    others = [honest(assignment, student).submission() for student in ("grace", "alan", "edsger")]
    shared = expectations.expect([work.submission(), *others], assignment)
    assert BASE in said(verify(work.submission(), assignment, shared), "base model", WRONG)
    assert not found(verify(others[0], assignment, shared), "base model", WRONG)
    assert not found(verify(work.submission(), assignment), "base model", WRONG)  # alone there is nothing to hold it against


def test_the_labs_own_record_outranks_the_class(load_assignment):
    assignment = load_assignment("title: All\nrecipe: smollm2-everyday\n", "all")
    settings = assignment.settings()["lora"]
    assert expectations.recorded("smollm2-everyday", "lora")["config"]["recipe"]["model"]["source"] == settings.recipe.model.source
    work = honest(load_assignment("title: All\nrecipe: smollm2-everyday\nhand_out: [3]\n", "all"))
    assert "than expected" in said(verify(work.submission(), assignment), "base model", WRONG)
    class_ = [replace(work.submission(), student=student) for student in ("ada", "grace", "alan")]
    findings = verify(class_[0], assignment, expectations.expect(class_, assignment))
    assert "the published weights may have changed" in said(findings, "base model", LOOK) and not found(findings, "base model", WRONG)


def test_where_the_data_cannot_be_read_the_class_decides_and_only_asks_for_a_look(load_assignment, monkeypatch):
    monkeypatch.setattr(expectations, "_corpus", lambda spec: None)
    assignment = load_assignment(FILE)
    class_ = [honest(assignment, student) for student in ("ada", "grace", "alan", "edsger")]
    class_[0].records["lora"]["data"]["fingerprint"] = "another"
    shared = expectations.expect([one.submission() for one in class_], assignment)
    findings = verify(class_[0].submission(), assignment, shared)
    assert {finding.method for finding in found(findings, "test set", LOOK)} == {"lora"}
    assert not found(verify(class_[1].submission(), assignment, shared), "test set", LOOK)
    assert "nor is there a majority" in said(verify(class_[1].submission(), assignment), "test set", LOOK)


# --- baseline ---------------------------------------------------------------------------------------------------------------------


def test_without_a_baseline_nothing_shows_what_training_changed(work, assignment):
    del work.records["zero_shot"]
    assert "nothing shows what training changed" in said(verify(work.submission(), assignment), "baseline", WRONG)


def test_another_prompt_of_the_baseline_is_named(work, assignment):
    work.records["zero_shot"]["config"]["recipe"]["prompt"]["instruction"] = "Be brief."
    assert "another prompt" in said(verify(work.submission(), assignment), "baseline", WRONG)


def test_a_baseline_that_was_started_after_a_training_is_looked_at(work, assignment):
    work.records["zero_shot"]["started"] = "2026-03-01T23:59:59+00:00"
    assert "started after full fine-tuning, LoRA, QLoRA" in said(verify(work.submission(), assignment), "baseline", LOOK)


@pytest.mark.parametrize("value", [None, 17, "yesterday", "9999-12-31T23:59:59-23:00", ["2026"], "2026-03-01T08:00:00"])
def test_a_start_without_a_time_is_not_known_and_one_without_a_zone_is(work, assignment, value):
    work.records["lora"]["started"] = value
    known = value == "2026-03-01T08:00:00"
    looks = [finding.says for finding in found(verify(work.submission(), assignment), "baseline", LOOK)]
    assert any("do not say when they were started" in says for says in looks) is not known


# --- numbers ----------------------------------------------------------------------------------------------------------------------


def test_scores_that_were_edited_are_named_with_what_the_summaries_give(work, assignment):
    right = work.records["lora"]["metrics"]["rouge1"]["mean"]
    sentence = said(verify(edited_scores(work).submission(), assignment), "scores", WRONG)
    assert "ROUGE-1 is recorded as" in sentence and f"and is {round(right, 2):g}" in sentence


def test_summaries_that_were_edited_no_longer_give_the_recorded_scores(work, assignment):
    row = work.predictions["lora"][0]
    row["prediction"] = row["references"][0]
    assert {finding.method for finding in found(verify(work.submission(), assignment), "scores", WRONG)} == {"lora"}


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL", "rougeLsum"])
@pytest.mark.parametrize("value", [None, "35.1", 10**400, True, float("nan")])
def test_each_measure_is_counted_again(work, assignment, name, value):
    work.records["lora"]["metrics"][name]["mean"] = value
    assert found(verify(work.submission(), assignment), "scores", WRONG)


def test_rounding_is_no_edit(work, assignment):
    score = work.records["lora"]["metrics"]["rouge1"]
    work.records["lora"]["metrics"]["rouge1"] = {key: round(value, 2) for key, value in score.items()}
    assert not found(verify(work.submission(), assignment), "scores", WRONG)


def test_an_interval_alone_asks_for_a_look(work, assignment):
    work.records["lora"]["metrics"]["rouge1"]["low"] -= 2
    findings = verify(work.submission(), assignment)
    assert "interval of ROUGE-1" in said(findings, "scores", LOOK) and not found(findings, "scores", WRONG)


@pytest.mark.parametrize(
    "block, name, words", [("metrics", "n", "number of documents"), ("generation", "stopped_share", "ended by itself")]
)
def test_counts_are_counted_again(work, assignment, block, name, words):
    work.records["lora"][block][name] = 0.123
    assert words in said(verify(work.submission(), assignment), "scores", WRONG)


def test_summaries_beyond_reason_are_not_scored(work, assignment):
    for row in work.predictions["lora"]:
        row["prediction"] = "word " * 400_000
        row["references"] = ["word " * 400]
    assert "far longer than any model writes" in said(verify(work.submission(), assignment), "scores", WRONG)


def test_a_recount_is_the_labs_own_score(work):
    rows = work.predictions["full"]
    own = metrics.score([Prediction(**row | {"references": tuple(row["references"])}) for row in rows])
    for name, values in records.recounted(rows).items():
        assert values == pytest.approx([row[name] for row in own])
    assert records.recounted([]) is None


def test_methods_with_different_budgets_are_named(work, assignment):
    work.records["lora"]["data"]["train"] = 12
    sentence = said(verify(work.submission(), assignment), "budget", WRONG)
    assert "12 train documents (should be 16)" in sentence and "different budgets" in sentence


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("steps", 40, "40 steps (the settings ask for 2)"),
        ("examples", 3, "3 examples in 2 steps of 8"),
        ("seconds", 900.0, "tokens a second"),
        ("tokens", -5, "not positive"),
        ("tokens_per_second", None, "not positive"),
        ("steps", "2", "missing"),
    ],
)
def test_work_that_does_not_add_up_is_named(work, assignment, name, value, words):
    work.records["lora"]["training"][name] = value
    assert words in said(verify(work.submission(), assignment), "budget", WRONG)


def test_examples_left_out_for_their_length_are_no_contradiction(load_assignment):
    longer = load_assignment("title: Long\nrecipe: tiny-causal\nhand_out: [1, 3]\ncommon: {train_examples: 240, test_examples: 4}\n")
    work = honest(longer)
    assert work.records["lora"]["training"]["steps"] == 30
    work.records["lora"]["training"] |= {"steps": 29, "examples": 231}
    assert not found(verify(work.submission(), longer), "budget", WRONG)


def test_a_try_out_is_no_run(work, load_assignment):
    longer = load_assignment(FILE.replace("test_examples: 4", "test_examples: 4, train_examples: 40"))
    findings = verify(try_out(honest(longer)).submission(), longer)
    assert "LoRA is a try-out, not a run: 1 of 5 training steps" in said(findings, "length", WRONG)


def test_fewer_test_documents_make_a_try_out(work, load_assignment):
    more = load_assignment(FILE.replace("test_examples: 4", "test_examples: 9"))
    assert "4 of 9 test documents" in said(verify(work.submission(), more), "length", WRONG)


@pytest.mark.parametrize("value", [None, "3.1", float("inf"), []])
def test_a_loss_that_is_no_number_is_named(work, assignment, value):
    work.records["lora"]["training"]["last_loss"] = value
    assert "LoRA is missing or no number" in said(verify(work.submission(), assignment), "training", WRONG)


def test_limits_of_memory_and_size_are_strict_and_those_of_time_ask_for_a_look(work, assignment):
    work.records["lora"]["training"]["peak_memory_gb"] = 2.5
    work.records["full"]["generation"]["seconds"] = 3600.0
    findings = verify(work.submission(megabytes=5.5), assignment)
    wrong = said(findings, "limits", WRONG)
    assert "peak memory was 2.5 GB, and 2 GB" in wrong and "submission takes 5.5 MB, and 5 MB" in wrong
    assert "minutes, and 30 minutes are allowed" in said(findings, "limits", LOOK)


def test_a_score_far_outside_the_recorded_interval_is_looked_at(load_assignment):
    assignment = load_assignment("title: All\nrecipe: smollm2-everyday\nhand_out: [1, 3]\ncommon: {seed: 5}\n", "all")
    own = copy.deepcopy(expectations.recorded("smollm2-everyday", "lora"))
    work = honest(load_assignment("title: Small\nrecipe: tiny-causal\nhand_out: [1, 3]\n", "all"))
    work.records, work.predictions = {"lora": own}, {}
    middle = own["metrics"]["rouge1"]["mean"]
    assert "inside the recorded interval" in said(verify(work.submission(), assignment), "expected scores", FINE)
    for far, side in ((middle + 30, "far above"), (middle - 20, "far below")):
        own["metrics"]["rouge1"]["mean"] = far
        assert side in said(verify(work.submission(), assignment), "expected scores", LOOK)
    other = load_assignment("title: All\nrecipe: smollm2-everyday\nhand_out: [1, 3]\ncommon: {rank: 2}\n", "all")
    assert "no record of a run like that" in said(verify(work.submission(), other), "expected scores", FINE)


# --- exercises and notebooks -------------------------------------------------------------------------------------------------------


def test_exercises_that_did_not_pass_are_named_with_the_points(load_assignment):
    assignment = load_assignment(FILE + "exercises: {lora_forward: 3, count_lora: 1, merge: 2}\n")
    work = honest(assignment, states={"count_lora": "almost"})
    del work.exercises["merge"]
    work.notebooks["03_lora"] = notebook(assignment.values("ada")["03_lora"], {"lora_forward": "passed", "count_lora": "almost"})
    submission = work.submission()
    sentence = said(verify(submission, assignment), "exercises", LOOK)
    assert "1 of the 3 exercises that count passed, 3 of 6 points" in sentence
    assert "Almost: count_lora. Not attempted: merge." in sentence
    assert verifying.points(submission, assignment.exercises) == 3


def test_a_state_that_the_notebook_does_not_show_is_looked_at(work, assignment):
    work.notebooks["03_lora"] = notebook(assignment.values("ada")["03_lora"], {"lora_forward": "almost"})
    sentence = said(verify(work.submission(), assignment), "exercises", LOOK)
    assert "lora_forward (passed; its notebook shows almost)" in sentence and "merge (passed; its notebook shows nothing)" in sentence


@pytest.mark.parametrize(
    "counts, words",
    [([1, 3, 2], "out of order"), ([2, 3, 4], "out of order"), ([1, None, 2], "1 of its"), ([None] * 3, "none of its cells")],
)
def test_cells_that_were_not_run_from_top_to_bottom_are_looked_at(work, assignment, counts, words):
    cells = work.notebooks["05_evaluation"]["cells"] = work.notebooks["05_evaluation"]["cells"][:3]
    for cell, count in zip(cells, counts, strict=True):
        cell["execution_count"] = count
    assert words in said(verify(work.submission(), assignment), "notebooks", LOOK)


def test_a_cell_that_was_tried_several_times_before_the_next_is_in_order():
    cells = [{"cell_type": "code", "source": "1", "execution_count": count} for count in (1, 5, 6)]
    blank = {"cell_type": "code", "source": "\n", "execution_count": None}
    assert executed.out_of_order({"cells": [*cells, blank]}) is None


def test_a_parameter_that_is_not_as_assigned_is_named_and_papermills_cell_counts(work, assignment):
    cells = work.notebooks["03_lora"]["cells"]
    cells.insert(2, {"cell_type": "code", "source": "rank = 16\nrun_dir = 'elsewhere'", "metadata": {"tags": ["injected-parameters"]}})
    assert "its parameter rank is 16 (should be 2)" in said(verify(work.submission(), assignment), "notebooks", LOOK)
    assert "run_dir" not in said(verify(work.submission(), assignment), "notebooks", LOOK)


@pytest.mark.parametrize("source", ["%magic\nrank = 2", "rank = open('x')", "(" * 5000, "rank = 'a\0b'", ["rank", 3], 7])
def test_parameters_that_cannot_be_read_are_said_to_be_so(work, assignment, source):
    work.notebooks["03_lora"]["cells"][1]["source"] = source
    assert "parameters cannot be read" in said(verify(work.submission(), assignment), "notebooks", LOOK)


@pytest.mark.parametrize(
    "broken", [None, [], {}, {"cells": 3}, {"cells": [None, 4, {}]}, {"cells": [{"cell_type": "code", "outputs": [{"data": 5}, 6]}]}]
)
def test_what_is_no_notebook_is_passed_over(broken):
    assert executed.states(broken) == {} and executed.parameters(broken) is None and executed.out_of_order(broken)


# --- hostile records -----------------------------------------------------------------------------------------------------------------

HOSTILE = [None, True, -1, 0, 1e308, 10**400, float("nan"), "", "x" * 10_000, "\ud800", "<script>", [], [[]], {}, {"a": {}}, [{}, 1]]


def test_no_value_anywhere_in_a_record_stops_a_check(made, assignment):
    shared = expectations.expect([], assignment)
    chance = random.Random(0)
    for value in HOSTILE:
        for _ in range(6):
            work = copy.deepcopy(made)
            record = work.records[chance.choice(list(work.records))]
            *outer, name = place = chance.choice(list(_places(record)))
            target = record
            for each in outer:
                target = target[each]
            target[name] = value
            findings = verify(work.submission(), assignment, shared)
            assert not [finding.says for finding in findings if "could not be checked (" in finding.says], (place, value)
            assert {finding.check for finding in findings} == set(CHECKS)
            json.dumps([finding.says for finding in findings])


# The reader makes sure that these hold what they should.
SURE = {"status", "method", "config", "config.recipe", "config.recipe.lengths", "config.recipe.generation", "data", "model"}


def _places(value, path=()):
    """The path of every value in a record."""
    for name, inner in value.items():
        if ".".join((*path, name)) not in SURE:
            yield *path, name
        if isinstance(inner, dict):
            yield from _places(inner, (*path, name))


def test_a_record_that_a_check_cannot_take_is_reported_and_the_others_go_on(work, assignment):
    work.records["lora"]["config"] = "nothing of the kind"
    findings = verify(work.submission(), assignment)
    assert "could not be checked" in said(findings, "baseline", LOOK)
    assert found(findings, "scores", FINE)


def test_nobody_is_verified_without_an_error(assignment):
    empty = replace(honest(assignment).submission(), records={}, predictions={}, exercises={}, answers={}, notebooks={}, student="\ud800")
    assert {finding.check for finding in verify(empty, assignment)} == set(CHECKS)


def test_every_field_of_a_recipe_is_either_compared_or_known_not_to_matter(assignment):
    settings = assignment.settings()["lora"]
    names = records.decisive(settings.model_dump(mode="json"), "lora")
    assert set(config.Adapter.model_fields) - set(names) == verifying.expected.NO_MATTER
    assert set(config.Lengths.model_fields) <= set(names) and {"seed", "recipe", "model", "data"} <= set(names)
