"""The whole offline course with the real model: the promise of the README."""

import time

import pytest

from lab_utils import runner, runs
from lab_utils.metrics import score
from lab_utils.significance import paired_difference

pytestmark = pytest.mark.course


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    out = tmp_path_factory.mktemp("course")
    started = time.perf_counter()
    runner.run(recipe="smollm2-everyday", out=str(out))
    return out, time.perf_counter() - started


@pytest.mark.parametrize(("method", "points"), [("full", 5), ("lora", 5), ("qlora", 3)])
def test_each_method_beats_zero_shot_by_what_the_readme_promises(course, method, points):
    trained, untrained = ([row["rouge1"] for row in score(runs.read(course[0], m).predictions)] for m in (method, "zero_shot"))
    assert paired_difference(trained, untrained).low >= points


def test_no_kernel_needs_more_than_8_gb(course):
    records = [run.record for run in runs.read_all(course[0])]
    assert max(r.get("training", r["generation"])["peak_memory_gb"] for r in records) <= 8


def test_the_course_takes_minutes(course):
    assert course[1] < 25 * 60  # 15 minutes on an idle machine; CI machines are not always idle


def test_the_same_seed_gives_the_same_predictions(course, tmp_path):
    runner.run(recipe="smollm2-everyday", out=str(tmp_path), only=["01"])
    first, second = ((folder / "zero_shot/predictions.jsonl").read_text() for folder in (course[0], tmp_path))
    assert first == second
