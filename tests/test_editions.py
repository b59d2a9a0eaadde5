"""Student, solution and instructor editions: of toy notebooks, and of the real ones."""

import re

import jupytext
import nbformat
import pytest
from exercises import exercises_of

from lab_utils import check, course, editions, notebooks
from lab_utils.errors import LabError

SOURCES = [course.source(notebook) for notebook in course.NOTEBOOKS]
EACH = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
HEADER = "# ---\n# jupyter:\n#   kernelspec:\n#     display_name: Python 3\n#     language: python\n#     name: python3\n# ---\n\n"


@pytest.fixture
def toy(tmp_path):
    """Writes a notebook's .py from the text of its cells, each with the words behind its `# %%`."""

    def write(*cells):
        cells = [("", cell) if isinstance(cell, str) else cell for cell in cells]
        path = tmp_path / "03_toy.py"
        path.write_text(HEADER + "\n\n".join(f"# %% {words}".rstrip() + f"\n{text}" for words, text in cells) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def of(toy):
    """The text of a cell in an edition."""
    return lambda cell, edition: editions.make(toy(cell), edition).cells[0].source


FUNCTION = """def double(x):
    \"\"\"Twice x.\"\"\"
    # BEGIN SOLUTION
    y = x + x
    return y
    # END SOLUTION


check.double(double)"""


def test_students_see_a_stub_where_a_functions_solution_stood(of):
    assert of(FUNCTION, "student") == (
        'def double(x):\n    """Twice x."""\n    return ...  # your code\n\n\ncheck.double(double)'
    )  # fmt: skip


@pytest.mark.parametrize("edition", ["solution", "instructor"])
def test_a_solution_stays_without_its_markers(of, edition):
    assert of(FUNCTION, edition) == (
        'def double(x):\n    """Twice x."""\n    y = x + x\n    return y\n\n\ncheck.double(double)'
    )  # fmt: skip


def test_methods_and_inner_functions_have_stubs_at_their_own_indentation(of):
    body = "            # BEGIN SOLUTION\n            return 1\n            # END SOLUTION\n"
    cell = f"class A:\n    def f(self):\n        def g():\n{body}        return g"
    assert "\n            return ...  # your code\n        return g" in of(cell, "student")


@pytest.mark.parametrize(
    ("solution", "stubs"),
    [
        ("answer = 6 * 7", ["answer"]),
        ("a = 1\n# why\nb = a + 1", ["a", "b"]),
        ("a, (b, *c) = 1, (2, 3)", ["a", "b", "c"]),
        ("first = second = 0", ["first", "second"]),
        ("total: int = 3", ["total"]),
        ("a = 1\na = 2", ["a"]),
        ("f = lambda x: (\n    x\n)", ["f"]),
    ],
)
def test_at_the_left_margin_every_name_that_gets_a_value_is_an_answer(of, solution, stubs):
    cell = f"given = 1\n# BEGIN SOLUTION\n{solution}\n# END SOLUTION\ncheck.it(given)"
    gaps = "\n".join(f"{name} = ...  # your answer" for name in stubs)
    assert of(cell, "student") == f"given = 1\n{gaps}\ncheck.it(given)"
    assert of(cell, "solution") == f"given = 1\n{solution}\ncheck.it(given)"


def test_a_cell_may_hold_several_regions(of):
    cell = f"# BEGIN SOLUTION\na = 1\n# END SOLUTION\n\n{FUNCTION}\n# BEGIN SOLUTION\nb = 2\n# END SOLUTION"
    student = of(cell, "student")
    assert student.startswith("a = ...  # your answer\n") and student.endswith("\nb = ...  # your answer")
    assert "    return ...  # your code\n" in student


def marked(text, before="", after=""):
    return f"{before}# BEGIN SOLUTION\n{text}\n# END SOLUTION{after}"


MISTAKES = {
    "unclosed": ("# BEGIN SOLUTION\na = 1", 1, "never ends"),
    "never begun": ("a = 1\n# END SOLUTION", 2, "never began"),
    "nested": ("# BEGIN SOLUTION\na = 1\n# BEGIN SOLUTION\nb = 1\n# END SOLUTION", 3, "inside the one of line 1"),
    "not alone": ("a = 1  # BEGIN SOLUTION\n# END SOLUTION", 1, "alone on its line"),
    "nbgrader's own": ("### BEGIN SOLUTION\na = 1\n### END SOLUTION", 1, "alone on its line"),
    "other case": ("# Begin Solution\na = 1\n# End Solution", 1, "alone on its line"),
    "two indentations": ("def f():\n    # BEGIN SOLUTION\n    return 1\n# END SOLUTION", 4, "as far in as that of line 2"),
    "not at the end": ("def f():\n    # BEGIN SOLUTION\n    a = 1\n    # END SOLUTION\n    return a", 2, "the end of a function's body"),
    "in an if": ("if True:\n    # BEGIN SOLUTION\n    a = 1\n    # END SOLUTION", 2, "the end of a function's body"),
    "in a class": ("class A:\n    # BEGIN SOLUTION\n    a = 1\n    # END SOLUTION", 2, "the end of a function's body"),
    "in a branch": ("def f(x):\n  if x:\n    # BEGIN SOLUTION\n    return 1\n    # END SOLUTION", 3, "the end of a function's body"),
    "not as far in": ("def f():\n  # BEGIN SOLUTION\n    return 1\n  # END SOLUTION", 2, "the end of a function's body"),
    "an empty body": ("def f():\n    a = 1\n    # BEGIN SOLUTION\n    # END SOLUTION", 3, "the end of a function's body"),
    "only a comment": (marked("# the answer is 42"), 1, "at least one name"),
    "a call": (marked("a = 1\nprint(a)"), 3, "only gives values to names"),
    "a whole function": (marked("def f():\n    return 1"), 2, "mark the end of its body"),
    "an import": (marked("import math"), 2, "only gives values to names"),
    "an element": (marked("a[0] = 1"), 2, "only gives values to names"),
    "an addition": (marked("a += 1"), 2, "only gives values to names"),
    "no value": (marked("a: int"), 2, "only gives values to names"),
    "part of a list": (marked("    1,", before="a = [\n", after="\n]"), 2, "whole statements"),
    "part of an if": (marked("else:\n    b = 2\na = 1", before="if a:\n    b = 1\n"), 3, "whole statements"),
    "part of a body": (marked("    return 1", before="def f():\n"), 2, "whole statements"),
    "no Python": (marked("a = = 1"), 2, "must be Python"),
    "in prose": (("[markdown]", "# Now fill in:\n#\n# BEGIN SOLUTION"), 3, "of a code cell"),
}


@pytest.mark.parametrize("edition", editions.EDITIONS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_authors_mistake_is_refused_with_its_place_in_every_edition(toy, mistake, edition):
    cell, line, said = MISTAKES[mistake]
    with pytest.raises(LabError) as caught:
        editions.make(toy("first = 1", cell), edition)
    assert str(caught.value).startswith(f"03_toy, cell 2, line {line}: ") and said in str(caught.value)


TAGGED = (
    ("[markdown]", "# A question"),
    ('[markdown] tags=["solution"]', "# Its answer"),
    ('tags=["solution"]', "print(42)"),
    ('[markdown] tags=["instructor"]', "# **For instructors.** Ten minutes."),
    "after = 1",
)


def test_tagged_cells_stand_only_in_the_editions_that_they_are_for(toy):
    path = toy(*TAGGED)
    ids = {edition: [cell.id for cell in editions.make(path, edition).cells] for edition in editions.EDITIONS}
    assert ids == {
        "student": ["cell-00", "cell-04"],
        "solution": ["cell-00", "cell-01", "cell-02", "cell-04"],
        "instructor": ["cell-00", "cell-01", "cell-02", "cell-03", "cell-04"],
    }


def test_instructors_recognise_such_cells_by_their_tags(toy):
    cells = editions.make(toy(*TAGGED), "instructor").cells
    assert [cell.metadata.get("tags") for cell in cells] == [None, ["solution"], ["solution"], ["instructor"], None]


def test_a_misspelled_tag_is_refused_since_its_cell_would_reach_students(toy):
    with pytest.raises(LabError, match="03_toy, cell 2: unknown tag 'solutions', did you mean 'solution'"):
        editions.make(toy("a = 1", ('tags=["solutions"]', "print(42)")), "student")
    assert editions.make(toy(('tags=["raises-exception"]', "1 / 0")), "student").cells


PARAMETERS = """recipe = "toy"  # which model; é is two bytes
seed = 0
rate = None; ranks = [
    2,
    4,
]  # to try
text = "a\\"b"  # quoted"""


@pytest.fixture
def baked(toy):
    return lambda **values: editions.make(toy(('tags=["parameters"]', PARAMETERS), "seed"), "student", values).cells[0].source


def test_baked_values_stand_in_place_of_the_defaults_and_nothing_else_changes(baked):
    assert baked(seed=7, rate=2e-4) == PARAMETERS.replace("seed = 0", "seed = 7").replace("rate = None", "rate = 0.0002")
    assert baked(ranks=[8]) == PARAMETERS.replace("[\n    2,\n    4,\n]", "[8]")


def test_a_value_equal_to_the_default_leaves_the_text_as_it_is(baked):
    assert baked(recipe="toy", seed=0, rate=None, ranks=[2, 4]) == PARAMETERS


@pytest.mark.parametrize("value", ['say "hi"\n', "C:\\new", "ü", -1.5, True, None, [], {"a": [1, None]}, 'x"; import os; "'])
def test_whatever_is_baked_in_is_read_back(baked, value):
    namespace = {}
    exec(baked(recipe=value), namespace)
    assert namespace["recipe"] == value and type(namespace["recipe"]) is type(value)
    assert (namespace["seed"], namespace["text"]) == (0, 'a"b')


def test_unknown_parameters_are_refused_with_the_nearest_name(baked):
    with pytest.raises(LabError, match="unknown parameter 'sede' for 03_toy, did you mean 'seed'.*unknown parameter 'rnks'"):
        baked(sede=1, rnks=[2])


# --- the real notebooks -------------------------------------------------------------------------------------------------------


def marked_cells(source):
    """Numbers of the cells that hold a marker, or are tagged for an edition."""
    cells = enumerate(jupytext.read(source).cells)
    return {n for n, cell in cells if editions.BEGIN in cell.source or {"solution", "instructor"} & set(cell.metadata.get("tags", []))}


def lines_of_regions(source):
    """Every line of code inside a region."""
    found, inside = [], False
    for line in source.read_text(encoding="utf-8").splitlines():
        if line.strip() in (editions.BEGIN, editions.END):
            inside = line.strip() == editions.BEGIN
        elif inside and line.strip() and not line.strip().startswith("#"):
            found.append(line.strip())
    return found


@EACH
def test_editions_are_equal_outside_exercises(source):
    made = {edition: {cell.id: cell for cell in editions.make(source, edition).cells} for edition in editions.EDITIONS}
    everything = [f"cell-{number:02d}" for number in range(len(jupytext.read(source).cells))]
    plain = [f"cell-{number:02d}" for number in set(range(len(everything))) - marked_cells(source)]
    assert list(made["instructor"]) == everything
    for cell in plain:
        assert made["student"][cell] == made["solution"][cell] == made["instructor"][cell]
    assert made["solution"] == {cell: made["instructor"][cell] for cell in made["solution"]}
    assert set(made["student"]) <= set(made["solution"])


@EACH
def test_no_solution_reaches_a_student(source):
    student = notebooks.generate(source)
    assert "BEGIN SOLUTION" not in student and "**Instructor" not in student
    shown = {line.strip() for cell in nbformat.reads(student, as_version=4).cells for line in cell.source.splitlines()}
    telling = {line for line in lines_of_regions(source) if len(line) >= 40}  # shorter ones may stand anywhere
    assert not telling & shown


@EACH
def test_markers_stand_in_no_edition(source):
    for edition in editions.EDITIONS:
        assert not any(editions.MARKER_WORDS.search(cell.source) for cell in editions.make(source, edition).cells)


@EACH
def test_what_students_get_is_python(source):
    for cell in editions.make(source, "student").cells:
        if cell.cell_type == "code":
            assert compile(cell.source, cell.id, "exec")


@EACH
def test_an_edition_is_the_same_each_time_it_is_made(source):
    for edition in editions.EDITIONS:
        made = editions.make(source, edition)
        assert made == editions.make(source, edition)
        nbformat.validate(made)


@EACH
def test_every_exercise_is_checked_exactly_once_in_its_notebook(source):
    called = [name for name, _ in exercises_of(source)]
    assert sorted(called) == sorted(name for name, exercise in check.EXERCISES.items() if exercise.notebook == source.stem)


@EACH
def test_headings_of_exercises_give_number_and_depth(source):
    for position, (name, heading) in enumerate(exercises_of(source), 1):
        number, depth = f"{int(source.stem[:2])}.{position}", check.EXERCISES[name].depth
        assert re.fullmatch(rf"### Exercise {re.escape(number)} \({depth}\): \S.+", heading or ""), name
