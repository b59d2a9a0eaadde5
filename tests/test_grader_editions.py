"""Notebooks for nbgrader and Otter, without these tools: their cells, what a tool's cut leaves, and the files."""

import ast
import json
import re
from collections import Counter
from functools import cache

import nbformat
import pytest
import yaml

from lab_utils import assignments, check, course, editions, graders
from lab_utils.errors import LabError

WEEK = {"title": "Week 1", "recipe": "tiny-causal", "common": {"seed": 7}}
EVERY = pytest.mark.parametrize("notebook", course.NOTEBOOKS, ids=lambda notebook: notebook.name)
EACH = pytest.mark.parametrize("kind", graders.MAKERS)
ALONE = ("break_even", "effective_rank")  # exercises of notebook 03 whose cells need no other cell
LORA = course.named("03")


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    """An assignment with these changes; by default every exercise counts."""

    def load(name="week1", **changes):
        path = tmp_path_factory.mktemp("assignments") / f"{name}.yaml"
        path.write_text(json.dumps(WEEK | changes), encoding="utf-8")
        return assignments.load(path)

    return load


@pytest.fixture(scope="module")
def everything(week):
    """The cells of a notebook where every exercise counts; each is made once, since a test only reads it."""
    given = week()
    return cache(lambda kind, notebook: cells(kind, notebook, given))


def cells(kind, notebook, given):
    return graders.MAKERS[kind](notebook, given).cells


def code(cells):
    return [cell for cell in cells if cell.cell_type == "code"]


def own(notebook):
    return {name for name, exercise in check.EXERCISES.items() if exercise.notebook == notebook.name}


def cell_that_checks(name, cells):
    return next(cell for cell in code(cells) if f"check.{name}(" in cell.source)


def cut(kind, source):
    """What a tool leaves of a cell, by its documented rules: nbgrader puts its stub, Otter the prompt."""
    if kind == "nbgrader":
        source = re.sub(r"(?ms)^### BEGIN HIDDEN TESTS\n.*?^### END HIDDEN TESTS$", "", source)
        return re.sub(r"(?ms)^( *)# BEGIN SOLUTION\n.*?^ *# END SOLUTION$", rf"\1{graders.STUB}", source)
    source = re.sub(r"(?ms)^ *# BEGIN SOLUTION NO PROMPT\n.*?^ *# END SOLUTION\n", "", source)
    return re.sub(r'(?m)^ *""" # BEGIN PROMPT\n|^ *"""; # END PROMPT\n', "", source)


def verdict(source):
    """What a cell that needs only `check` finds."""
    names = {"check": check}
    *before, last = ast.parse(source).body
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


# --- the cells of both --------------------------------------------------------------------------------------------------------


@EACH
@EVERY
def test_every_exercise_that_counts_has_one_test_that_asks_its_check(kind, notebook, everything):
    made = everything(kind, notebook)
    tests = [cell.source for cell in code(made) if "graded.passed" in cell.source]
    asked = Counter(name for source in tests for name in re.findall(r"graded = check\.(\w+)\(", source))
    assert asked == dict.fromkeys(own(notebook), 1) and len(tests) == len(own(notebook))


@EACH
@EVERY
def test_a_test_hands_the_check_what_the_notebook_hands_it(kind, notebook, everything):
    for name in own(notebook):
        calls = [
            ast.unparse(node)
            for cell in code(everything(kind, notebook))
            for node in ast.walk(ast.parse(cell.source))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"check.{name}"
        ]
        assert len(calls) == 2 and len(set(calls)) == 1


@EACH
@EVERY
def test_a_cut_leaves_what_students_get_elsewhere(kind, notebook, everything, week):
    student = editions.make(course.source(notebook), "student", week().values()[notebook.name]).cells
    left = {cell.id: cut(kind, cell.source) for cell in everything(kind, notebook)}
    for cell in student:
        kept = [line for line in left[cell.id].splitlines() if line.strip() != graders.STUB]
        assert kept == [line for line in cell.source.splitlines() if line != "os.chdir(root)"]


@EACH
@EVERY
def test_with_its_solutions_a_notebook_is_valid_and_python(kind, notebook, everything):
    made = everything(kind, notebook)
    nbformat.validate(nbformat.v4.new_notebook(cells=made))
    assert len({cell.id for cell in made}) == len(made)
    for cell in code(made):
        assert compile(cell.source, cell.id, "exec")


@EACH
@pytest.mark.parametrize("name", ALONE)
def test_an_exercise_passes_with_its_solution_and_is_not_attempted_without(kind, name, everything):
    source = cell_that_checks(name, everything(kind, LORA)).source
    assert verdict(source).state == "passed"
    assert verdict(cut(kind, source)).state == "not attempted"


@EACH
@pytest.mark.parametrize("name", ALONE)
def test_a_test_stops_only_where_the_check_does_not_pass(kind, name, everything):
    made = everything(kind, LORA)
    answer = cell_that_checks(name, made).source
    test = next(cell.source for cell in code(made) if f"graded = check.{name}(" in cell.source)
    exec(f"{answer}\n{test}", {"check": check})
    with pytest.raises(AssertionError, match=re.escape(check.EXERCISES[name].title)):
        exec(f"{cut(kind, answer)}\n{test}", {"check": check})


@EACH
@EVERY
def test_a_notebook_stays_in_the_folder_where_the_grader_runs_it(kind, notebook, everything):
    assert not any("chdir" in cell.source for cell in everything(kind, notebook))


@EACH
def test_the_assignments_values_are_in_the_parameters_cell(kind, week):
    made = cells(kind, LORA, week(notebooks={"03": {"rank": 8}}))
    lines = next(cell.source for cell in made if "parameters" in cell.metadata.get("tags", [])).splitlines()
    assert "seed = 7" in lines and any(line.startswith("rank = 8 ") for line in lines)
    assert any(line.startswith('assignment = "week1"') for line in lines)


@EACH
@EVERY
def test_answers_and_notes_for_instructors_are_left_out(kind, notebook, everything):
    made = everything(kind, notebook)
    assert not any({"solution", "instructor"} & set(cell.metadata.get("tags", [])) for cell in made)
    assert not any("**Instructor" in cell.source for cell in made)


@EACH
def test_an_exercise_that_does_not_count_has_no_test_and_a_gap(kind, week):
    made, given = cells(kind, LORA, week(exercises={"merge": 2})), week()
    assert sum("graded.passed" in cell.source for cell in made) == 1
    student = {cell.id: cell for cell in editions.make(course.source(LORA), "student", given.values()[LORA.name]).cells}
    for name in own(LORA) - {"merge"}:
        cell = cell_that_checks(name, made)
        assert cell == student[cell.id]


@EACH
def test_a_notebook_is_the_same_each_time_it_is_made(kind, week):
    assert graders.MAKERS[kind](LORA, week()) == graders.MAKERS[kind](LORA, week())


# --- nbgrader -----------------------------------------------------------------------------------------------------------------


def test_nbgraders_test_cell_stands_locked_below_its_answer_with_the_points(week):
    made = cells("nbgrader", LORA, week(exercises={"merge": 2.5, "break_even": 0}))
    found = {cell.metadata["nbgrader"]["grade_id"]: n for n, cell in enumerate(made) if "nbgrader" in cell.metadata}
    for name, points in {"merge": 2.5, "break_even": 0}.items():
        answer, test = (made[found[which]].metadata["nbgrader"] for which in (name, f"test-{name}"))
        assert found[f"test-{name}"] == found[name] + 1
        assert (answer["solution"], answer["grade"], answer["locked"]) == (True, False, False)
        assert (test["solution"], test["grade"], test["locked"], test["points"]) == (False, True, True, points)
        assert answer["schema_version"] == test["schema_version"] == 3


@EVERY
def test_nbgrader_ids_are_unique_and_every_marked_cell_is_an_answer(notebook, everything):
    made = everything("nbgrader", notebook)
    known = [cell.metadata["nbgrader"] for cell in made if "nbgrader" in cell.metadata]
    assert len({one["grade_id"] for one in known}) == len(known) == 2 * len(own(notebook))
    assert all(cell.metadata.get("nbgrader", {}).get("solution", False) == ("BEGIN SOLUTION" in cell.source) for cell in made)


@pytest.mark.parametrize(("limits", "seconds"), [({}, graders.CELL_SECONDS), ({"minutes": 30}, 1800), ({"minutes": 0.5}, 30)])
def test_nbgraders_configuration_gives_a_cell_the_assignments_minutes(limits, seconds, week):
    class Options(dict):
        __getattr__ = dict.__getitem__
        __setattr__ = dict.__setitem__

    options = Options(ClearSolutions=Options(), ExecutePreprocessor=Options())
    exec(graders.nbgrader_config(week(limits=limits)), {"get_config": lambda: options})
    assert options.ExecutePreprocessor.timeout == seconds
    assert options.ClearSolutions.code_stub == {"python": graders.STUB}


# --- Otter --------------------------------------------------------------------------------------------------------------------


@EVERY
def test_otters_blocks_are_closed_in_order_around_one_answer_and_one_test(notebook, everything):
    made = everything("otter", notebook)
    words = "\n".join(cell.source.splitlines()[0] if cell.cell_type == "raw" else cell.cell_type for cell in made)
    question = "# BEGIN QUESTION\n# BEGIN SOLUTION\ncode\n# END SOLUTION\n# BEGIN TESTS\ncode\n# END TESTS\n# END QUESTION"  # fmt: skip
    assert words.startswith("# ASSIGNMENT CONFIG\n")
    assert words.count(question) == words.count("# BEGIN QUESTION") == words.count("# END QUESTION") == len(own(notebook))


def test_otters_questions_have_names_and_points(week):
    points = {"merge": 2.5, "break_even": 0.0}
    raw = [cell.source for cell in cells("otter", LORA, week(exercises=points)) if cell.cell_type == "raw"]
    found = [yaml.safe_load(source) for source in raw if source.startswith("# BEGIN QUESTION")]
    assert {one["name"]: one["points"] for one in found} == points


def test_otter_makes_its_autograder(everything):
    settings = yaml.safe_load(everything("otter", LORA)[0].source)
    assert settings["generate"] is True


# --- files --------------------------------------------------------------------------------------------------------------------


def test_nbgrader_finds_its_folders_and_otter_plain_notebooks(week, tmp_path):
    given = week("first week <b>", hand_out=[1, 3])
    written = {kind: graders.write(kind, given, tmp_path / kind) for kind in graders.MAKERS}
    names = ["01_zero_shot_baseline.ipynb", "03_lora.ipynb"]
    assert sorted(path.relative_to(tmp_path / "otter").as_posix() for path in written["otter"]) == names
    assert sorted(path.relative_to(tmp_path / "nbgrader").as_posix() for path in written["nbgrader"]) == [
        "nbgrader_config.py", *(f"source/first-week-b/{name}" for name in names)
    ]  # fmt: skip
    for path in (path for paths in written.values() for path in paths if path.suffix == ".ipynb"):
        nbformat.validate(nbformat.read(path, as_version=4))


@EACH
def test_what_somebody_changed_is_not_replaced_unless_forced(kind, week, tmp_path):
    given, out = week(hand_out=[3]), tmp_path / "out"
    path = next(path for path in graders.write(kind, given, out) if path.suffix == ".ipynb")
    graders.write(kind, given, out)
    changed = nbformat.read(path, as_version=4)
    changed.cells[-1].source += " My remark."
    nbformat.write(changed, path)
    with pytest.raises(LabError, match="03_lora.ipynb.*Nothing was written"):
        graders.write(kind, given, out)
    graders.write(kind, given, out, force=True)
    assert "My remark." not in path.read_text(encoding="utf-8")


def test_a_courses_own_configuration_is_left_alone_even_when_forced(week, tmp_path):
    (tmp_path / graders.CONFIG).write_text("c = get_config()\n", encoding="utf-8")
    written = graders.write("nbgrader", week(hand_out=[3]), tmp_path, force=True)
    assert (tmp_path / graders.CONFIG).read_text(encoding="utf-8") == "c = get_config()\n"
    assert [path.name for path in written] == ["03_lora.ipynb"]


@EACH
def test_values_that_vary_are_refused_since_a_grader_hands_out_one_notebook(kind, week, tmp_path):
    with pytest.raises(LabError, match=f"{kind} hands one notebook to all: leave 'vary' out"):
        graders.write(kind, week(vary={"salt": "abcd", "seed": 10}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "words"), [("nbgarder", "did you mean 'nbgrader'"), ("", "nbgrader, otter"), ("Okpy\ud800", "nbgrader, otter")]
)
def test_an_unknown_grader_is_refused_with_the_known_ones(kind, words, week, tmp_path):
    with pytest.raises(LabError, match=words):
        graders.write(kind, week(), tmp_path)
