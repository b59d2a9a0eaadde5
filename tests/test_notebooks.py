"""The notebooks as files, and executed from the first to the last with tiny models of both families."""

import ast
import json

import jupytext
import nbformat
import pytest
import yaml
from exercises import exercises_of, verdicts

from lab_utils import assignment_file, config, notebooks, runner, runs
from lab_utils.check.exercise import NOT_ATTEMPTED, PASSED
from lab_utils.course import NOTEBOOKS, parameters_of, root
from lab_utils.course import source as source_of

SOURCES = [source_of(notebook) for notebook in NOTEBOOKS]
DATA = ("data", "data_dir", "document_column", "summary_column", "test_from", "test_examples", "data_seed")  # what decides the test set
WIDTH = 96  # characters that a window of 1366 pixels shows
EACH = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def cells(source, kind="code"):
    return [cell for cell in jupytext.read(source).cells if cell.cell_type == kind]


@EACH
def test_the_ipynb_is_what_its_source_generates(source):
    assert source.with_suffix(".ipynb").read_text(encoding="utf-8") == notebooks.generate(source), "run `make notebooks`"


@EACH
def test_committed_notebooks_are_valid_and_hold_no_outputs_and_no_paths(source):
    text = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    assert "/home/" not in text and "/Users/" not in text


def test_all_headers_and_first_code_cells_are_the_same():
    headers = {source.read_text(encoding="utf-8").split("# %% [markdown]")[0] for source in SOURCES}
    assert len(headers) == 1
    assert len({cells(source)[0].source for source in SOURCES}) == 1


@EACH
def test_each_notebook_has_short_code_and_no_more_cells_than_an_evening_takes(source):
    everything = jupytext.read(source).cells
    code = sorted(len(cell.source.splitlines()) for cell in cells(source)[1:] if "parameters" not in cell.metadata.get("tags", []))
    assert 20 <= len(everything) <= 85
    assert code[len(code) // 2] <= 8 and code[-1] <= 20


@EACH
def test_code_lines_are_shown_whole_in_jupyterlab_on_a_laptop(source):
    code = [line for cell in cells(source)[1:] for line in cell.source.splitlines()]
    assert [line for line in code if len(line) > WIDTH] == []


def parameters_and_what_follows(source):
    """The parameters with their defaults, the statements of their cell, and every syntax node of the cells after it."""
    notebook = next(n for n in NOTEBOOKS if n.name == source.stem)
    code = cells(source)
    where = next(i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", []))
    following = [node for cell in code[where + 1 :] for node in ast.walk(ast.parse(cell.source))]
    return parameters_of(notebook), ast.parse(code[where].source).body, following


@EACH
def test_every_parameter_is_a_literal_and_is_used_later(source):
    parameters, statements, following = parameters_and_what_follows(source)
    assert len(parameters) == len(statements)
    assert set(parameters) <= {node.id for node in following if isinstance(node, ast.Name)}


@EACH
def test_no_later_cell_gives_a_parameter_another_value(source):
    parameters, _, following = parameters_and_what_follows(source)
    stored = {node.id for node in following if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    imported = {name.asname or name.name for node in following if isinstance(node, ast.Import | ast.ImportFrom) for name in node.names}
    assert not set(parameters) & (stored | imported)


@EACH
def test_every_notebook_hands_the_same_data_parameters_to_the_recipe(source):
    _, _, following = parameters_and_what_follows(source)
    calls = [node for node in following if isinstance(node, ast.Call) and ast.unparse(node).startswith("config.resolve(recipe,")]
    assert len(calls) == 1
    handed = {word.arg: ast.unparse(word.value) for word in calls[0].keywords}
    assert {name: handed.get(name) for name in DATA} == {name: name for name in DATA}


@EACH
def test_a_parameter_without_a_value_of_its_own_is_one_of_the_recipes(source):
    parameters, _, _ = parameters_and_what_follows(source)
    none = {name for name, value in parameters.items() if value is None}
    assert none <= set(config.recipe_parameters()) | set(assignment_file.SET_BY_THE_LAB)


@EACH
def test_notebooks_end_with_a_recap_and_questions_and_name_the_next(source):
    last = cells(source, "markdown")[-1].source
    assert "In this notebook we have" in last and "**Questions**" in last and "**Next:**" in last


@pytest.fixture(scope="module")
def course(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp(recipe)
    runner.run(recipe=recipe, out=str(out), parameters={"seed": 3})
    return out


@pytest.mark.notebook
def test_the_course_runs_to_its_end_and_leaves_records_and_a_report(course, recipe):
    finished = runs.read_all(course)
    assert [run.method for run in finished] == list(config.METHODS)
    assert {run.record["seed"] for run in finished} == {3}
    assert {run.record["recipe"] for run in finished} == {recipe}
    assert not runs.unlike(finished)
    assert (course / "report.html").is_file()


@pytest.mark.notebook
def test_executed_notebooks_show_no_error_and_no_warning(course):
    for source in SOURCES:
        executed = nbformat.read(course / f"{source.stem}.ipynb", as_version=4)
        outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
        assert outputs
        noise = [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
        assert not noise, noise


@pytest.mark.notebook
def test_figures_in_executed_notebooks_have_alternative_text(course):
    for source in SOURCES:
        executed = nbformat.read(course / f"{source.stem}.ipynb", as_version=4)
        images = [o for c in executed.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
        assert all(o.metadata["image/png"]["alt"] for o in images)
        assert images


@pytest.mark.notebook
def test_every_exercise_passes_with_the_labs_solution_and_shows_it(course):
    for source in SOURCES:
        assert verdicts(course / f"{source.stem}.ipynb") == [(name, PASSED) for name, _ in exercises_of(source)]


@pytest.mark.notebook
def test_a_student_who_has_answered_nothing_still_reaches_the_end(tmp_path):
    for notebook, values in runner.planned("tiny-causal", out=str(tmp_path)):
        runner.execute(notebook, tmp_path / f"{notebook.name}.ipynb", values, "student")
        said = verdicts(tmp_path / f"{notebook.name}.ipynb")
        assert said == [(name, NOT_ATTEMPTED) for name, _ in exercises_of(source_of(notebook))]


@pytest.mark.notebook
def test_records_hold_no_absolute_path(course):
    for path in [*course.glob("*/run.json"), *course.glob("*/predictions.jsonl"), *course.glob("*/adapter/adapter_config.json")]:
        assert str(course) not in path.read_text(encoding="utf-8")
        assert str(root()) not in path.read_text(encoding="utf-8")


@pytest.mark.notebook
def test_a_second_run_does_nothing_again_but_the_evaluation(course, recipe, capsys):
    before = {path: path.stat().st_mtime_ns for path in course.glob("*/run.json")}
    runner.run(recipe=recipe, out=str(course), parameters={"seed": 3}, only=["01", "03"])
    assert capsys.readouterr().out.count("already done") == 2
    assert before == {path: path.stat().st_mtime_ns for path in course.glob("*/run.json")}


@pytest.mark.notebook
def test_the_same_seed_gives_the_same_predictions(course, recipe, tmp_path):
    runner.run(recipe=recipe, out=str(tmp_path), parameters={"seed": 3}, only=["03"])
    first, second = (folder / "lora/predictions.jsonl" for folder in (course, tmp_path))
    assert first.read_text() == second.read_text()


@pytest.mark.notebook
@pytest.mark.parametrize("relative", ["pissa", "dora"])
def test_the_notebook_of_lora_holds_for_its_relatives(tmp_path, relative):
    values = yaml.safe_load((config.RECIPES / "tiny-causal.yaml").read_text(encoding="utf-8"))
    values["lora"][relative] = True
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    runner.run(recipe=str(tmp_path / "own.yaml"), out=str(tmp_path / "run"), only=["03"])
    assert {state for _, state in verdicts(tmp_path / "run/03_lora.ipynb")} == {PASSED}
    assert runs.read(tmp_path / "run", "lora").record["config"]["recipe"]["lora"][relative] is True


@pytest.mark.notebook
def test_a_failing_cell_is_named_and_the_notebook_kept(write_lines, tmp_path):
    folder = write_lines([json.dumps({"document": "A: hi", "summary": "word " * 400})])
    with pytest.raises(runner.LabError, match=r"03_lora stopped at cell \d+ .*raise that limit or shorten"):
        runner.run(recipe="tiny-causal", out=str(tmp_path / "run"), only=["03"], parameters={
            "data_dir": str(folder), "train_examples": 1, "validation_examples": 1, "test_examples": 1})  # fmt: skip
    assert (tmp_path / "run/03_lora.ipynb").is_file()
    assert runs.status_of(tmp_path / "run", "lora") != "finished"
