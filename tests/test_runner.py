import json

import nbformat
import pytest

from lab_utils import course, editions, runner
from lab_utils.errors import LabError


def planned(*only, recipe="tiny-causal", out=None, assignment=None, student=None, **given):
    return {notebook.number: values for notebook, values in runner.planned(recipe, assignment, only, given, out, student)}


@pytest.fixture
def week(tmp_path):
    def write(text):
        (tmp_path / "week1.yaml").write_text("title: t\nrecipe: tiny-causal\n" + text)
        return str(tmp_path / "week1.yaml")

    return write


def test_defaults_give_way_to_the_assignment_and_that_to_the_command_line(week):
    assignment = week("common: {seed: 1}\nnotebooks: {03_lora: {seed: 2}}\n")
    assert planned()["01"]["seed"] == 0
    assert [planned(recipe=None, assignment=assignment)[number]["seed"] for number in ("01", "03")] == [1, 2]
    assert planned(recipe=None, assignment=assignment, seed=3)["03"]["seed"] == 3


def test_a_students_own_values_are_run(week):
    assignment = week("vary: {salt: abcd, seed: 1000}\n")
    seeds = {planned(recipe=None, assignment=assignment, student=student)["02"]["seed"] for student in ("ann", "ben", "cy", "dan")}
    assert len(seeds) > 1
    with pytest.raises(LabError, match="give --assignment"):
        planned(student="ann")


def test_only_the_notebooks_that_are_handed_out_are_run(week):
    assert list(planned(recipe=None, assignment=week("hand_out: [1, 3]\n"))) == ["01", "03"]


def test_a_parameter_reaches_the_notebooks_that_have_it_and_no_others():
    values = planned(rank=8)
    assert values["03"]["rank"] == 8 and values["04"]["rank"] == 8
    assert "rank" not in values["01"]


def test_the_run_directory_follows_recipe_or_assignment_unless_it_is_given(week):
    assert planned()["01"]["run_dir"] == "runs/tiny-causal"
    assert planned(out="runs/mine")["01"]["run_dir"] == "runs/mine"
    assert planned(recipe=None, assignment=week(""))["01"]["run_dir"] == "runs/week1"
    named = week("common: {run_dir: runs/mine}\n")
    assert planned(recipe=None, assignment=named)["01"]["run_dir"] == "runs/mine"
    assert planned(recipe=None, assignment=named, out="runs/given")["01"]["run_dir"] == "runs/given"


def test_unknown_parameters_are_refused_with_the_nearest_name_all_at_once():
    with pytest.raises(LabError, match="unknown parameter 'rnk'.*did you mean 'rank'.*unknown parameter 'sede'"):
        planned(rnk=8, sede=1)


def test_a_parameter_that_only_other_notebooks_have_is_refused():
    with pytest.raises(LabError, match="unknown parameter 'rank'"):
        planned("01", rank=8)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", "x", "a whole number"),
        ("seed", 1.5, "a whole number"),
        ("seed", True, "a whole number"),
        ("prompt_examples", [1], "a whole number"),
        ("shots_tried", ["a"], "a list"),
        ("rank", 0, "greater than or equal to 1"),
        ("learning_rate", "fast", "valid number"),
        ("epochs", -1, "greater than 0"),
        ("target_modules", 7, "target_modules"),
    ],
)
def test_a_wrong_type_is_refused_before_anything_runs(name, value, words):
    with pytest.raises(LabError, match=name) as caught:
        planned(**{name: value})
    assert words in str(caught.value)


def test_command_line_values_are_read_as_yaml():
    read = runner.parse_assignments(["a=1", "b=true", "c=[2, 8]", "d=text", "e=2e-4"])
    assert read == {"a": 1, "b": True, "c": [2, 8], "d": "text", "e": 2e-4}


@pytest.mark.parametrize("word", ["seed", "=1", ""])
def test_a_command_line_word_without_name_or_value_is_refused(word):
    with pytest.raises(LabError, match="name=value"):
        runner.parse_assignments([word])


def test_notebooks_are_chosen_by_number_or_name_in_course_order():
    assert [n.number for n in course.choose(["03", "01_zero_shot_baseline"])] == ["01", "03"]
    with pytest.raises(LabError, match="no notebook '07'"):
        course.choose(["07"])


def test_a_notebook_is_done_only_with_equal_parameters_and_a_finished_record(tmp_path):
    notebook = course.NOTEBOOKS[2]
    output = tmp_path / f"{notebook.name}.ipynb"
    values = {"seed": 0}

    cells = nbformat.v4.new_notebook(cells=editions.make(course.source(notebook), "solution").cells).cells

    def leave(status="finished", parameters=values, cells=cells, **papermill):
        (tmp_path / "lora").mkdir(exist_ok=True)
        (tmp_path / "lora" / "run.json").write_text(json.dumps({"status": status}))
        metadata = {"papermill": {"end_time": "now", "exception": None, "parameters": parameters} | papermill}
        output.write_text(json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
        return runner.is_done(notebook, output, values, tmp_path)

    assert leave()
    assert not leave(status="stopped")
    assert not leave(parameters={"seed": 1})
    assert not leave(end_time=None)
    assert not leave(cells=cells[:-1])
    assert not leave(exception=True)
    output.write_text("{")
    assert not runner.is_done(notebook, output, values, tmp_path)


def test_progress_shows_only_the_lines_that_say_progress(capsys):
    runner.Progress().write("a table\n· step 1/2\nmore\n")
    assert capsys.readouterr().out == "      step 1/2\n"
