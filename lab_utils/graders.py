"""An assignment's notebooks for the graders that departments have: nbgrader, and Otter Assign.

Both take a notebook with solutions, cut these out for students, and later execute what students hand in, with a test for each exercise.
So a notebook for them keeps its solutions, marked in the tool's own words, and each test asks the exercise's own check once more.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_utils import check, course, editions, fields, files, handout
from lab_utils.assignments import Assignment
from lab_utils.course import Notebook
from lab_utils.editions import Region
from lab_utils.errors import LabError

CONFIG = "nbgrader_config.py"
CELL_SECONDS = 3600  # what a cell may take where the assignment sets no limit; nbgrader's own 30 seconds would stop any training
STUB = "# YOUR CODE HERE"  # nbgrader puts the same text into every gap; the lab's stubs stand outside the markers
LEAVES_ITS_FOLDER = re.compile(r"^os\.chdir\(root\)\n", re.MULTILINE)

Stubbed = Callable[[Region, Sequence[str]], list[str]]  # a region and the lines of its solution -> the lines in their place


def write(kind: str, given: Assignment, out: str | Path, force: bool = False) -> list[Path]:
    """Writes an assignment's notebooks as a grader takes them; returns the files' paths.

    Args:
        kind: "nbgrader": source/<assignment>/NN_*.ipynb in a course's folder, and nbgrader_config.py unless the course has one;
            "otter": NN_*.ipynb.
        force: replace files that were changed, too.

    Raises:
        LabError: an unknown grader, an assignment that gives each student values of their own, or `out` holds files that somebody
            changed; then nothing is written.
    """
    import nbformat

    if kind not in MAKERS:
        raise LabError(f"No grader '{kind}'{fields.did_you_mean(kind, MAKERS)}; choose from {', '.join(MAKERS)}.")
    if given.varies:
        raise LabError(
            f"Assignment {given.name} gives each student values of their own, and {kind} hands one notebook to all: "
            "leave 'vary' out of the file, or hand out with --students FILE and mark with `lab check`."
        )
    folder = Path("source", files.safe_name(given.name)) if kind == "nbgrader" else Path()
    texts = {folder / f"{notebook.name}.ipynb": nbformat.writes(MAKERS[kind](notebook, given)) + "\n" for notebook in given.notebooks}
    if kind == "nbgrader" and not Path(out, CONFIG).exists():
        texts[Path(CONFIG)] = nbgrader_config(given)
    return handout.keep(Path(out), texts, force)


# --- nbgrader -----------------------------------------------------------------------------------------------------------------


def nbgrader(notebook: Notebook, given: Assignment):
    """A notebook for nbgrader's source folder: a NotebookNode with its cell metadata (schema 3).

    The cell of an exercise that counts is an autograded answer; the locked cell below it carries the points. The test in it is hidden:
    nbgrader takes it out for students, whom an exercise that is not solved yet would stop, and puts it back to grade.
    """

    def stubbed(region: Region, inside: Sequence[str]) -> list[str]:
        marked = [_as_far_in(region) + editions.BEGIN, *inside, _as_far_in(region) + editions.END]
        return [*marked, *region.stub] if _as_far_in(region) else [*region.stub, *marked]  # after a `return`, or before the answer

    return _made(notebook, given, stubbed, _for_nbgrader)


def _for_nbgrader(exercise: _Exercise) -> Iterator[Any]:
    kind = {"schema_version": 3, "task": False}
    answer = kind | {"grade_id": exercise.name, "solution": True, "grade": False, "locked": False}
    test = kind | {"grade_id": f"test-{exercise.name}", "solution": False, "grade": True, "locked": True, "points": exercise.points}
    exercise.cell.metadata["nbgrader"] = answer
    yield exercise.cell
    said = f'# {exercise.points:g} {"point" if exercise.points == 1 else "points"} if the check above says "passed"'
    hidden = f"### BEGIN HIDDEN TESTS\n{exercise.test}\n### END HIDDEN TESTS"
    yield _code_cell(f"{exercise.cell.id}-test", f"{said}\n{hidden}", nbgrader=test)


def nbgrader_config(given: Assignment) -> str:
    """The text of nbgrader_config.py: what students see in place of a solution, and how many seconds a cell may take."""
    seconds = round(60 * given.limits.minutes) if given.limits.minutes else CELL_SECONDS
    return f'c = get_config()\nc.ClearSolutions.code_stub = {{"python": "{STUB}"}}\nc.ExecutePreprocessor.timeout = {seconds}\n'


# --- Otter --------------------------------------------------------------------------------------------------------------------


def otter(notebook: Notebook, given: Assignment):
    """A notebook for Otter Assign (format v1): a NotebookNode with raw cells around each exercise that counts.

    The lab's stub is Otter's prompt, so a student's notebook runs to its end with every gap unfilled. Tests are public: Otter runs hidden
    ones after the last cell, when names may have other values.
    """

    def stubbed(region: Region, inside: Sequence[str]) -> list[str]:
        lines = ["# BEGIN SOLUTION NO PROMPT", "# END SOLUTION", '""" # BEGIN PROMPT', '"""; # END PROMPT']
        begin, end, prompt, prompted = (_as_far_in(region) + line for line in lines)
        return [begin, *inside, end, prompt, *region.stub, prompted]

    made = _made(notebook, given, stubbed, _for_otter)
    made.cells.insert(0, _raw_cell("otter", "ASSIGNMENT CONFIG", export_cell=False, generate=True))
    return made


def _for_otter(exercise: _Exercise) -> Iterator[Any]:
    name = exercise.cell.id
    yield _raw_cell(f"{name}-question", "BEGIN QUESTION", name=exercise.name, points=exercise.points)
    yield _raw_cell(f"{name}-solution", "BEGIN SOLUTION")
    yield exercise.cell
    yield _raw_cell(f"{name}-solution-end", "END SOLUTION")
    yield _raw_cell(f"{name}-tests", "BEGIN TESTS")
    yield _code_cell(f"{name}-test", exercise.test)
    yield _raw_cell(f"{name}-tests-end", "END TESTS")
    yield _raw_cell(f"{name}-question-end", "END QUESTION")


def _raw_cell(cell_id: str, words: str, /, **values: Any):
    """A raw cell with Otter's words as a comment, and values below it as YAML."""
    import nbformat.v4
    import yaml

    text = yaml.safe_dump(values, sort_keys=False) if values else ""
    return nbformat.v4.new_raw_cell(f"# {words}\n{text}".rstrip(), id=cell_id)


MAKERS = {"nbgrader": nbgrader, "otter": otter}


# --- what both need -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Exercise:
    """A cell with an exercise that counts; `call` checks the answer, as in `check.merge(merge)`."""

    cell: Any
    name: str
    call: str
    points: float

    @property
    def test(self) -> str:
        """Code that stops with what the check says, unless that is "passed"."""
        return f"graded = {self.call}\nassert graded.passed, graded.says"


def _made(notebook: Notebook, given: Assignment, stubbed: Stubbed, surrounded: Callable[[_Exercise], Iterator[Any]]):
    """A student edition in which exercises that count have their solutions back, for the tool to cut out.

    The others keep the gap: Otter would show their solutions, since it cuts inside its questions only. A grader executes each student's
    notebook in a folder of its own and looks for its files there, so no cell changes the folder.

    Args:
        stubbed: what stands in place of a solution.
        surrounded: the cells that stand in place of an exercise's.
    """
    made = editions.make(course.source(notebook), "student", given.values()[notebook.name])
    marked, points, cells = _marked(notebook), given.exercises, []
    for cell in made.cells:
        name, call = _check_in(cell.source) if cell.cell_type == "code" else (None, None)
        if name in points:
            cell.source = _with_solutions(marked[cell.id], stubbed, notebook.name)
            cells += surrounded(_Exercise(cell, name, call, points[name]))
        else:
            cell.source = LEAVES_ITS_FOLDER.sub("", cell.source)
            cells.append(cell)
    made.cells = cells
    return made


def _marked(notebook: Notebook) -> dict[str, str]:
    """Every cell's text with its markers, by the id that the cell has in all editions."""
    import jupytext

    source = course.source(notebook)
    with_ids = editions.make(source, "instructor").cells  # the edition that has all cells
    return {cell.id: marked.source for cell, marked in zip(with_ids, jupytext.read(source).cells, strict=True)}


def _with_solutions(text: str, stubbed: Stubbed, place: str) -> str:
    lines = text.split("\n")
    for region in reversed(editions.regions(lines, "code", place)):
        lines[region.first - 1 : region.last] = stubbed(region, lines[region.first : region.last - 1])
    return "\n".join(lines)


def _check_in(code: str) -> tuple[str, str] | tuple[None, None]:
    """The exercise that a cell's code checks, and the call that does it."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="check"), attr=name)) if name in check.EXERCISES:
                return name, ast.unparse(node)
    return None, None


def _as_far_in(region: Region) -> str:
    """The indentation of a region: none at the left margin."""
    return region.stub[0][: -len(region.stub[0].lstrip())]


def _code_cell(cell_id: str, text: str, **metadata: Any):
    import nbformat.v4

    return nbformat.v4.new_code_cell(text, id=cell_id, metadata=metadata)
