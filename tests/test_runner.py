import json

import nbformat
import pytest

from lab_utils import config, editions, runner
from lab_utils.errors import LabError


def merged(given=None, only=(), common=None, notebooks=None, recipe="tiny-causal", out=None):
    assignment = config.Assignment(title="t", common=common or {}, notebooks=notebooks or {})
    return {n.number: values for n, values in runner.merge(runner.choose(only), assignment, given or {}, recipe, out)}


def test_defaults_give_way_to_the_assignment_and_that_to_the_command_line():
    assert merged()["01"]["seed"] == 0
    assert merged(common={"seed": 1})["01"]["seed"] == 1
    assert merged(common={"seed": 1}, notebooks={"03_lora": {"seed": 2}})["03"]["seed"] == 2
    assert merged(common={"seed": 1}, notebooks={"03_lora": {"seed": 2}})["01"]["seed"] == 1
    assert merged({"seed": 3}, common={"seed": 1}, notebooks={"03_lora": {"seed": 2}})["03"]["seed"] == 3


def test_a_parameter_reaches_the_notebooks_that_have_it_and_no_others():
    values = merged({"rank": 8})
    assert values["03"]["rank"] == 8 and values["04"]["rank"] == 8
    assert "rank" not in values["01"]


def test_the_run_directory_follows_the_recipe_unless_it_is_given():
    assert merged()["01"]["run_dir"] == "runs/tiny-causal"
    assert merged(out="runs/mine")["01"]["run_dir"] == "runs/mine"


def test_the_run_directory_of_an_assignment_is_its_own_unless_it_names_another(tmp_path):
    def run_dir(common, out=None):
        (tmp_path / "week1.yaml").write_text(f"title: t\ncommon: {json.dumps(common)}\n")
        return runner.planned(assignment=str(tmp_path / "week1.yaml"), out=out)[0][1]["run_dir"]

    assert run_dir({}) == "runs/week1"
    assert run_dir({"run_dir": "runs/mine"}) == "runs/mine"
    assert run_dir({"run_dir": "runs/mine"}, out="runs/given") == "runs/given"


def test_an_unknown_parameter_is_refused_with_the_nearest_name():
    with pytest.raises(LabError, match="unknown parameter 'rnk'.*did you mean 'rank'"):
        merged({"rnk": 8})


def test_a_parameter_that_only_other_notebooks_have_is_refused():
    with pytest.raises(LabError, match="unknown parameter 'rank'"):
        merged({"rank": 8}, only=["01"])


def test_unknown_names_in_an_assignment_are_all_reported_at_once():
    with pytest.raises(LabError) as caught:
        merged(common={"sede": 1}, notebooks={"03_lora": {"rnk": 2}, "07_more": {}})
    assert all(word in str(caught.value) for word in ("sede", "rnk", "07_more"))


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
        merged({name: value})
    assert words in str(caught.value)


def test_a_number_that_yaml_reads_as_text_is_a_number():
    given = merged({"learning_rate": "2e-4"})["03"]["learning_rate"]
    assert config.resolve("tiny-causal", "lora", learning_rate=given).training.learning_rate == 2e-4


def test_command_line_values_are_read_as_yaml():
    read = runner.parse_assignments(["a=1", "b=true", "c=[2, 8]", "d=text", "e=2.5"])
    assert read == {"a": 1, "b": True, "c": [2, 8], "d": "text", "e": 2.5}


@pytest.mark.parametrize("word", ["seed", "=1", ""])
def test_a_command_line_word_without_name_or_value_is_refused(word):
    with pytest.raises(LabError, match="name=value"):
        runner.parse_assignments([word])


def test_notebooks_are_chosen_by_number_or_name_in_course_order():
    assert [n.number for n in runner.choose(["03", "01_zero_shot_baseline"])] == ["01", "03"]
    with pytest.raises(LabError, match="No notebook '07'"):
        runner.choose(["07"])


def test_a_notebook_is_done_only_with_equal_parameters_and_a_finished_record(tmp_path):
    notebook = runner.NOTEBOOKS[2]
    output = tmp_path / f"{notebook.name}.ipynb"
    values = {"seed": 0}

    cells = nbformat.v4.new_notebook(cells=editions.make(runner.source(notebook), "solution").cells).cells

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
