"""The whole offline course with the real model: the promise of the README."""

import subprocess
import sys
import time

import nbformat
import pytest

from lab_utils import runner, runs
from lab_utils.metrics import score
from lab_utils.significance import paired_difference

pytestmark = pytest.mark.course
LONG = 10.0  # seconds in which a cell must say something; the issue is a reader who waits, not a slow processor
MEMORY_GB = 6  # a laptop of 8 GB has about as much to give


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    out = tmp_path_factory.mktemp("course")
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "lab_utils", "run", "--recipe", "smollm2-everyday", "--out", str(out)],
        capture_output=True, text=True,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out, time.perf_counter() - started


def cells_of(folder):
    """Notebook, cell and its outputs, for every cell that was executed."""
    for path in sorted(folder.glob("0*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                yield path.stem, cell


def test_no_cell_of_the_course_warns(course):
    warned = [(name, output.text) for name, cell in cells_of(course[0]) for output in cell.outputs if output.get("name") == "stderr"]
    assert warned == []


def test_a_cell_that_takes_long_says_how_far_it_is(course):
    silent = []
    for name, cell in cells_of(course[0]):
        seconds = cell.metadata.papermill.duration or 0
        said = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
        if seconds > LONG and "· " not in said and said.count("\n") < seconds / LONG:
            silent.append((name, seconds, cell.source[:60]))
    assert silent == []


@pytest.mark.parametrize(("method", "points"), [("full", 5), ("lora", 5), ("qlora", 3)])
def test_each_method_beats_zero_shot_by_what_the_readme_promises(course, method, points):
    trained, untrained = ([row["rouge1"] for row in score(runs.read(course[0], m).predictions)] for m in (method, "zero_shot"))
    assert paired_difference(trained, untrained).low >= points


def test_no_kernel_needs_more_than_a_small_laptop_has(course):
    records = [run.record for run in runs.read_all(course[0])]
    assert max(r.get("training", r["generation"])["peak_memory_gb"] for r in records) <= MEMORY_GB


def test_the_course_takes_minutes(course):
    assert course[1] < 25 * 60  # 15 minutes on an idle machine; CI machines are not always idle


def test_the_same_seed_gives_the_same_predictions(course, tmp_path):
    runner.run(recipe="smollm2-everyday", out=str(tmp_path), only=["01"])
    first, second = ((folder / "zero_shot/predictions.jsonl").read_text() for folder in (course[0], tmp_path))
    assert first == second
