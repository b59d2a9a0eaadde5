"""What a class is given."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from lab_utils import assignment_file, assignments, cli, course, editions, handout
from lab_utils.errors import LabError

WEEK = {
    "title": "Week 1 <b>ranks</b>",
    "about": "Find out **why**.\n\n<script>alert(1)</script>",
    "deadline": "Friday, 18:00",
    "recipe": "tiny-causal",
    "common": {"seed": 7},
    "notebooks": {"03": {"rank": 8}},
    "exercises": {"merge": 2, "count_lora": 1.5},
    "marking": [{"criterion": "Compares fairly", "points": 4, "look_for": "Paired differences."}],
    "limits": {"minutes": 30, "upload_mb": 10},
}


@pytest.fixture
def week(tmp_path, monkeypatch):
    """An assignment's file, changed as told, and an empty folder to stand in."""
    monkeypatch.chdir(tmp_path)

    def write(**changes):
        (tmp_path / "week1.yaml").write_text(json.dumps(WEEK | changes))
        return str(tmp_path / "week1.yaml")

    return write


def cells(path):
    return nbformat.read(path, as_version=4).cells


def parameters(path):
    return next(cell.source for cell in cells(path) if "parameters" in cell.metadata.get("tags", [])).splitlines()


# --- notebooks ----------------------------------------------------------------------------------------------------------------


def test_notebooks_hold_the_assignments_values(week):
    handout.write(week(), "out")
    for edition in editions.EDITIONS:
        values = parameters(f"out/{edition}/03_lora.ipynb")
        assert 'recipe = "tiny-causal"  # which model, data, prompt and budgets' in values
        assert 'run_dir = "runs/week1"  # where records go' in values
        assert "seed = 7" in values and "rank = 8  # r: rows of A, columns of B" in values
        assert any(line.startswith('assignment = "week1"') for line in values)
    lora = course.named("03")
    expected = editions.make(course.source(lora), "student", assignments.load("week1.yaml").values()["03_lora"])
    assert cells("out/student/03_lora.ipynb") == expected.cells


def test_without_an_assignment_the_parameters_are_those_of_the_source(tmp_path):
    handout.write(None, tmp_path)
    for notebook in course.NOTEBOOKS:
        committed = course.source(notebook).with_suffix(".ipynb")
        assert cells(tmp_path / "student" / committed.name) == cells(committed)


def test_only_what_is_handed_out_is_written(week):
    handout.write(week(hand_out=[3, 5], exercises=["merge"]), "out")
    assert {path.name for path in (handout.Path("out") / "student").glob("*.ipynb")} == {"03_lora.ipynb", "05_evaluation.ipynb"}


def test_solutions_and_remarks_reach_no_student(week):
    written = handout.write(week(), "out")
    students = [path for path in written if path.parts[1] == "student"]
    assert students and not any("Instructor" in path.read_text() or "BEGIN SOLUTION" in path.read_text() for path in students)
    assert not any(
        "marking" in path.name or "look_for" in path.read_text() or "Paired differences." in path.read_text() for path in students
    )


# --- students -----------------------------------------------------------------------------------------------------------------


def test_each_student_gets_a_folder_with_values_of_their_own(week):
    handout.write(week(vary={"salt": "abcd", "seed": 10_000}), "out", ["ann@school.org", "ben"])
    one, other = (parameters(f"out/student/{student}/03_lora.ipynb") for student in ("ann@school.org", "ben"))
    assert 'student = "ben"' in "\n".join(other)
    assert next(line for line in one if line.startswith("seed")) != next(line for line in other if line.startswith("seed"))
    chosen = assignments.load("week1.yaml").choice("ben")
    assert f"seed = {chosen['seed']}" in other
    with open("out/instructor/values.csv", newline="") as file:
        assert {row["student"]: row["seed"] for row in csv.DictReader(file)}["ben"] == str(chosen["seed"])


def test_values_that_vary_need_students(week):
    with pytest.raises(LabError, match="--students FILE"):
        handout.write(week(vary={"salt": "abcd", "seed": 10}), "out")


@pytest.mark.parametrize(
    ("text", "students"),
    [
        ("ann\nben\n", ["ann", "ben"]),
        ("﻿Student ID,Name\r\n17,Ann\r\n18,Ben\r\n", ["17", "18"]),
        ("# week 1\n\n  ann  \n", ["ann"]),
        ('"Müller, Jörg",x\n', ["Müller, Jörg"]),
        ("email\nann@school.org\n", ["ann@school.org"]),
    ],
)
def test_a_roster_is_a_line_each_or_the_first_column(tmp_path, text, students):
    (tmp_path / "class.csv").write_text(text, encoding="utf-8")
    assert handout.roster(tmp_path / "class.csv") == students


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "names no student"), (b"ann\nben\nAnn\n", "line 3.*second time"), (b"\xff\xfe\xfa", "UTF-8")]
)
def test_a_roster_that_cannot_be_used_is_refused(tmp_path, content, words):
    (tmp_path / "class.txt").write_bytes(content)
    with pytest.raises(LabError, match=words):
        handout.roster(tmp_path / "class.txt")
    with pytest.raises(LabError, match="nowhere"):
        handout.roster(tmp_path / "nowhere.txt")


def test_students_whose_folders_would_be_one_are_refused(week):
    with pytest.raises(LabError, match="a/b, a b"):
        handout.write(week(), "out", ["a/b", "a b"])


@pytest.mark.parametrize("student", ["..", " ", "///"])
def test_an_id_without_letters_or_digits_is_refused(week, student):
    with pytest.raises(LabError, match="letters or digits"):
        handout.write(week(), "out", [student])


@pytest.mark.parametrize("student", ["../../evil", "a/b", "C:\\x", "con.", "a\nb", "Müller, Jörg"])
def test_no_id_leaves_the_folder(week, tmp_path, student):
    written = handout.write(week(), "out", [student])
    assert all((tmp_path / "out") in path.resolve().parents for path in written)


# --- the brief ----------------------------------------------------------------------------------------------------------------


def test_the_brief_says_what_to_do_until_when_what_it_takes_what_counts_and_how_to_hand_in(week):
    handout.write(week(), "out")
    text = handout.Path("out/student/brief.md").read_text()
    said = [
        "Friday, 18:00",
        "Find out **why**",
        "| 03_lora |",
        "GB",
        "3.5 points",
        "Compares fairly",
        "30 minutes",
        "10 MB",
        "lab pack runs/week1",
    ]
    assert [words for words in said if words not in text] == []
    assert "`seed = 7`" in text and "`rank = 8`" in text


class Seen(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]


def test_the_briefs_page_obeys_no_html_of_the_file_and_asks_for_nothing_from_the_network(week):
    handout.write(week(), "out")
    seen = Seen(handout.Path("out/student/brief.html").read_text())
    assert "script" not in seen.tags and "b" not in seen.tags and seen.addresses == []
    assert seen.tags.count("table") >= 1 and "h1" in seen.tags


def test_every_table_of_brief_and_guide_has_as_many_cells_in_each_row_as_in_its_head(week):
    for place in (None, "ada/course/main/week-1"):
        handout.write(week(), "out", github=place, force=True)
        for name in ("student/brief.md", "instructor/marking.md"):
            tables, before = [], ""
            for line in handout.Path("out", name).read_text().splitlines():
                if line.startswith("|"):
                    tables = tables if before.startswith("|") else [*tables, []]
                    tables[-1].append(line.count("|"))
                before = line
            assert tables and all(len(table) > 2 and len(set(table)) == 1 for table in tables), (name, tables)


def test_links_open_the_file_that_stands_there(week):
    handout.write(week(), "out", ["ben"], github="https://github.com/ada/course/tree/main/week-1")
    first = cells("out/student/ben/03_lora.ipynb")[0].source
    assert "https://colab.research.google.com/github/ada/course/blob/main/week-1/student/ben/03_lora.ipynb" in first
    assert "https://kaggle.com/kernels/welcome?src=https://github.com/ada/course/blob/main/week-1/student/ben/03_lora.ipynb" in first
    assert first.startswith("# ")
    assert "student/ben/03_lora.ipynb" in handout.Path("out/student/ben/brief.md").read_text()


@pytest.mark.parametrize("place", ["ada", "ada/course", "ada course/x/y", "https://gitlab.com/a/b/c"])
def test_a_place_that_is_none_is_refused(week, place):
    with pytest.raises(LabError, match="owner/repository/branch/folder"):
        handout.write(week(), "out", github=place)


def test_the_marking_guide_holds_criteria_and_exercises_with_their_points(week):
    handout.write(week(), "out")
    text = handout.Path("out/instructor/marking.md").read_text()
    assert "| merge | 03_lora |" in text and "| 2 |" in text and "**Compares fairly** (4 points). Paired differences." in text


def test_the_guide_gives_the_recorded_bands_of_a_recorded_recipe():
    text = handout.marking_guide(assignments.load("first-week"))
    assert "| ROUGE-1 |" in text and "LoRA" in text


# --- nothing is lost ----------------------------------------------------------------------------------------------------------


def changed(path):
    """The notebook with an answer written into its last code cell."""
    notebook = nbformat.read(path, as_version=4)
    [cell for cell in notebook.cells if cell.cell_type == "code"][-1].source += "\nmine = 1"
    nbformat.write(notebook, path)


def executed(path):
    """The notebook with an output, as running a cell leaves it."""
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.outputs = [nbformat.v4.new_output("stream", text="hi")]
    nbformat.write(notebook, path)


def broken(path):
    path.write_text("{")


@pytest.mark.parametrize("touch", [changed, executed, broken])
def test_a_notebook_that_somebody_worked_on_is_not_replaced_unless_forced(week, capsys, touch):
    written = handout.write(week(), "out")
    mine = next(path for path in written if path.name == "02_full_fine_tuning.ipynb")
    touch(mine)
    before = {path: path.read_bytes() for path in written}
    assert cli.main(["assignment", week(common={"seed": 8}), "--out", "out"]) == cli.FAILED
    error = capsys.readouterr().err
    assert str(mine) in error and "01_zero" not in error and "--force" in error and error.count("\n") == 1
    assert before == {path: path.read_bytes() for path in before}
    assert cli.main(["assignment", "week1.yaml", "--out", "out", "--force"]) == cli.DONE
    assert "seed = 8" in mine.read_text()


def test_a_brief_that_somebody_edited_is_not_replaced_either(week):
    handout.write(week(), "out")
    handout.Path("out/student/brief.md").write_text("In our words.")
    with pytest.raises(LabError, match=r"brief\.md"):
        handout.write(week(common={"seed": 8}), "out")


def test_files_that_nobody_touched_follow_the_assignment(week):
    handout.write(week(), "out")
    path = handout.Path("out/student/01_zero_shot_baseline.ipynb")
    opened = nbformat.read(path, as_version=4)
    opened.metadata["language_info"]["version"] = "3.12"  # what an editor adds when it saves
    nbformat.write(opened, path)
    handout.write(week(common={"seed": 8}), "out")
    assert "seed = 8" in path.read_text()


def test_the_command_names_every_file_that_it_writes(week, capsys):
    assert cli.main(["assignment", week(), "--out", "out"]) == cli.DONE
    written = capsys.readouterr().out.splitlines()
    assert {path for path in handout.Path("out").rglob("*") if path.is_file() and path.name != handout.WRITTEN} == set(map(Path, written))


def test_the_command_asks_where_to_and_prints_the_schema(week, capsys):
    assert cli.main(["assignment", week()]) == cli.FAILED
    assert "--out DIR" in capsys.readouterr().err
    assert cli.main(["assignment", "--schema"]) == cli.DONE
    assert json.loads(capsys.readouterr().out) == assignment_file.schema()
