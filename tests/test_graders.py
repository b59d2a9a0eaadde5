"""Through nbgrader and Otter themselves, which `make test-graders` installs apart from the lab: they bring a Jupyter of their own."""

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

from lab_utils import assignments, course, editions, graders

pytestmark = pytest.mark.graders

ROOT = course.root()
TOOLS = Path(os.environ.get("LAB_GRADERS", ROOT / ".venv-graders")).absolute() / "bin"
POINTS = {"break_even": 1, "effective_rank": 2.5}  # exercises that need nothing but `check`
LAST = "went on with 2 directions"
TOY = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Toy

# %%
import os
from pathlib import Path

root = Path.cwd().parent
os.chdir(root)
from lab_utils import check

# %% tags=["parameters"]
recipe = "tiny-causal"
run_dir = "runs/toy"
seed = 0
assignment = None
student = None

# %% [markdown]
# ### Exercise 3.1 (recall): From which rank on?

# %%
# BEGIN SOLUTION
smallest = 501
# END SOLUTION
check.break_even(smallest)

# %% [markdown]
# ### Exercise 3.2 (build): Count the directions

# %%
def effective_rank(values):
    # BEGIN SOLUTION
    held = 0.0
    for count, value in enumerate(values):
        if held >= 0.9 * sum(value**2 for value in values):
            return count
        held += value**2
    return len(values)
    # END SOLUTION


verdict = check.effective_rank(effective_rank)
best = verdict.best
verdict

# %% tags=["solution"]
secret = "an answer to a question"

# %% [markdown] tags=["instructor"]
# **Instructor, 3.2** (5 minutes).

# %%
smallest = effective_rank = "other values by now"
print("went on with", best([3.0, 4.0]), "directions")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs one of the tools in a folder; returns what it printed."""
    home = tmp_path_factory.mktemp("home")
    around = {**os.environ, "HOME": str(home), "PATH": os.pathsep.join([str(TOOLS), os.environ["PATH"]]), "PYTHONPATH": str(ROOT)}

    def run(*words, cwd):
        if not (TOOLS / words[0]).is_file():
            pytest.skip(f"{words[0]} is not in {TOOLS}: `make test-graders` installs it and runs these tests")
        done = subprocess.run(words, cwd=cwd, env=around, capture_output=True, text=True, timeout=300, executable=TOOLS / words[0])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with a small notebook 03 in a checkout of its own, and what `graders.write` made of it in `nbgrader` and `otter`."""
    folder = tmp_path_factory.mktemp("toy")
    shutil.copytree(ROOT / "notebooks", folder / "checkout/notebooks", ignore=shutil.ignore_patterns("*.ipynb"))
    (folder / "checkout/notebooks/03_lora.py").write_text(TOY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course, "root", lambda: folder / "checkout")
        for kind in graders.MAKERS:
            graders.write(kind, week(folder), folder / kind)
    return folder


def week(folder):
    sheet = {"title": "Week 1", "recipe": "tiny-causal", "hand_out": [3], "common": {"seed": 7}, "exercises": POINTS}
    (folder / "week1.yaml").write_text(json.dumps(sheet), encoding="utf-8")
    return assignments.load(folder / "week1.yaml")


def solve(released, toy, path, names):
    """Writes what a student hands in: the notebook that was handed out, with these exercises solved."""
    solutions = [cell.source for cell in editions.make(toy / "checkout/notebooks/03_lora.py", "solution").cells]
    notebook = nbformat.read(released, as_version=4)
    for cell in notebook.cells:
        for name in names:
            if cell.cell_type == "code" and f"check.{name}(" in cell.source:
                cell.source = next(source for source in solutions if f"check.{name}(" in source)
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)


def assert_students_copy(path, source):
    """It is the lab's own student edition but for the tool's cells and comments: gaps, and no line of a solution."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    shown = {cell.id: cell.source.splitlines() for cell in notebook.cells}
    for cell in editions.make(source, "student").cells:
        lines = shown.pop(cell.id)
        if "parameters" in cell.metadata.get("tags", []):
            assert "seed = 7" in lines
        else:
            kept = [line for line in lines if line.strip() != graders.STUB]
            assert kept == [line for line in cell.source.splitlines() if line != "os.chdir(root)"]
    assert all(line.startswith(("#", "import otter", "grader")) for lines in shown.values() for line in lines)
    assert not any("graded" in line for lines in shown.values() for line in lines)


def printed(path):
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


# --- nbgrader -----------------------------------------------------------------------------------------------------------------


def test_nbgrader_hands_out_the_real_notebook_with_gaps_and_without_solutions(run, tmp_path):
    graders.write("nbgrader", week(tmp_path), tmp_path)
    run("nbgrader", "generate_assignment", "week1", cwd=tmp_path)
    assert_students_copy(tmp_path / "release/week1/03_lora.ipynb", ROOT / "notebooks/03_lora.py")


@pytest.fixture(scope="module")
def released(run, toy):
    run("nbgrader", "generate_assignment", "week1", cwd=toy / "nbgrader")
    return toy / "nbgrader/release/week1/03_lora.ipynb"


def test_nbgrader_gives_the_points_of_what_is_solved(run, toy, released):
    folder = toy / "nbgrader"
    assert_students_copy(released, toy / "checkout/notebooks/03_lora.py")
    work = {"all": tuple(POINTS), "half": ("effective_rank",), "none": ()}
    for student, solved in work.items():
        solve(released, toy, folder / "submitted" / student / "week1/03_lora.ipynb", solved)
    run("nbgrader", "autograde", "week1", cwd=folder)
    run("nbgrader", "export", cwd=folder)
    with open(folder / "grades.csv", newline="") as file:
        scores = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    assert scores == {student: (sum(POINTS[name] for name in solved), sum(POINTS.values())) for student, solved in work.items()}
    for student in work:
        assert LAST in printed(folder / "autograded" / student / "week1/03_lora.ipynb")


def test_nbgraders_notebook_runs_to_its_end_with_every_gap_unfilled(run, released, tmp_path):
    run("jupyter-nbconvert", "--to", "notebook", "--execute", "--output-dir", str(tmp_path), released.name, cwd=released.parent)
    assert LAST in printed(tmp_path / released.name)


# --- Otter --------------------------------------------------------------------------------------------------------------------


def test_otter_hands_out_the_real_notebook_with_gaps_and_without_solutions(run, tmp_path):
    graders.write("otter", week(tmp_path), tmp_path)
    run("otter", "assign", "03_lora.ipynb", "dist", "--no-run-tests", cwd=tmp_path)
    assert_students_copy(tmp_path / "dist/student/03_lora.ipynb", ROOT / "notebooks/03_lora.py")


@pytest.fixture(scope="module")
def dist(run, toy):
    """The toy as Otter hands it out."""
    said = run("otter", "assign", "03_lora.ipynb", "dist", "-v", cwd=toy / "otter")
    assert "All autograder tests passed" in said
    return toy / "otter/dist"


def test_otter_gives_the_points_of_what_is_solved(run, toy, dist):
    handed_out, solved = dist / "student/03_lora.ipynb", "effective_rank"
    assert_students_copy(handed_out, toy / "checkout/notebooks/03_lora.py")
    solve(handed_out, toy, dist / "handed_in/03_lora.ipynb", [solved])
    (autograder,) = (dist / "autograder").glob("*.zip")
    run("otter", "run", "--autograder", str(autograder), "--output-dir", ".", "handed_in/03_lora.ipynb", cwd=dist)
    found = json.loads((dist / "results.json").read_text(encoding="utf-8"))["tests"]
    scores = {name: (one["score"], one["max_score"]) for one in found for name in POINTS if one["name"].startswith(name)}
    assert scores == {name: (points if name == solved else 0, points) for name, points in POINTS.items()}


def test_otters_notebook_runs_to_its_end_with_every_gap_unfilled(run, dist, tmp_path):
    run("jupyter-nbconvert", "--to", "notebook", "--execute", "--output-dir", str(tmp_path), "03_lora.ipynb", cwd=dist / "student")
    assert LAST in printed(tmp_path / "03_lora.ipynb")
