"""A whole class: two hundred submissions of the default recipe's kind, some of them not what they seem."""

import csv
import time

import classroom
import pytest

from lab_utils import assignments
from lab_utils.submissions import gradebook, reading

STUDENTS = 200
LIMIT_SECONDS = 120
SPOILT = {
    17: classroom.edited_scores,
    42: classroom.other_test_set,
    99: lambda work: classroom.half_finished(work, "lora"),
    150: classroom.try_out,
}


@pytest.mark.course
def test_two_hundred_submissions_are_checked_in_two_minutes_and_only_the_spoilt_ones_are_wrong(tmp_path):
    path = tmp_path / "week.yaml"
    path.write_text("title: Week\nextends: first-week\nvary: {salt: spring, seed: 1000}\n", encoding="utf-8")
    assignment = assignments.load(path)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    classroom.classroom(assignment, STUDENTS, inbox, SPOILT)
    started = time.perf_counter()
    marks = gradebook.mark(reading.read_all([inbox]), assignment, tmp_path / "marks")
    seconds = time.perf_counter() - started
    print(f"{STUDENTS} submissions checked in {seconds:.0f} s")
    assert seconds < LIMIT_SECONDS
    with (tmp_path / "marks" / "marks.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(marks.rows) == STUDENTS
    assert {row["student"] for row in rows if int(row["wrong"])} == {f"s{number:03d}" for number in SPOILT}
    assert len(list((tmp_path / "marks" / "students").glob("*.html"))) == STUDENTS
