"""Marks of a class: a table for a spreadsheet, a page of the class, and a page for each student.

Likenesses stand on the page of the class alone: a student's page may be shown to that student.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from lab_utils import files, scrubbing
from lab_utils.assignments import id_key
from lab_utils.plots import METHOD_NAMES
from lab_utils.progress import through
from lab_utils.sheets import printable
from lab_utils.submissions import figures
from lab_utils.submissions.expectations import Expectations, expect
from lab_utils.submissions.likeness import Pair, alike
from lab_utils.submissions.records import at, finished, minutes, moment, number, peak_memory, recounted, writable
from lab_utils.submissions.verifying import FINE, LOOK, WRONG, Finding, points, states, verify

if TYPE_CHECKING:
    from lab_utils.assignments import Assignment
    from lab_utils.plots import Picture
    from lab_utils.submissions.reading import Submission

TEMPLATES = Path(__file__).parent
MOST_SAID = 20  # students of whom the command line says what is wrong; the pages say it of all
LONG_AGO = datetime.min.replace(tzinfo=UTC)  # for a submission that does not say when it was packed
DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)\d")  # no names of files on Windows
# Where a spreadsheet would begin to compute, also one that separates cells by semicolons or tabs and takes quotes inside for letters.
FORMULA = re.compile(r"(?:\A|(?<=[;\t\n]))(?=[ \t]*[=+\-@＝＋－＠])|\A(?=[\t\n])")


@dataclass(frozen=True)
class Marks:
    """What `mark` wrote and found.

    Attributes:
        rows: one per student, as in marks.csv.
        wrong: student -> what is wrong, a sentence each; who has nothing wrong is not in it.
        missing: who of the roster handed in nothing.
    """

    rows: list[dict[str, Any]]
    wrong: dict[str, list[str]]
    pairs: list[Pair]
    folder: Path
    missing: list[str]

    def __str__(self) -> str:
        """A line for each student, then what is wrong first, who should talk to whom, and where the rest stands."""
        import pandas as pd

        shown = pd.DataFrame([{**row, "points": f"{row['points']:g} of {row['of']:g}"} for row in self.rows])
        columns = [name for name in shown if name in ("student", "points", "verdict") or name.startswith("ROUGE-1")]
        lines = [shown[columns].fillna("").to_string(index=False)] if self.rows else ["No submission was found."]
        for student, (first, *more) in list(self.wrong.items())[:MOST_SAID]:
            lines.append(f"{student}: {first}" + (f" And {len(more)} more." if more else ""))
        lines += [f"Worth a talk: {pair.first} and {pair.second}. {pair.says}" for pair in self.pairs]
        lines += [f"Nothing from: {', '.join(self.missing)}."] if self.missing else []
        return "\n".join([*lines, f"The class: {self.folder / 'index.html'}; the table: {self.folder / 'marks.csv'}"])


@dataclass(frozen=True)
class _Marked:
    """A submission with all that its pages say."""

    submission: Submission
    findings: list[Finding]
    row: dict[str, Any]
    page: str  # file name
    states: dict[str, str]
    numbers: dict[str, dict[str, float | None]]  # method -> "ROUGE-1", "minutes" and "peak memory GB"
    left_out: list[Submission]  # earlier ones of the same student


def mark(submissions: Sequence[Submission], assignment: Assignment, out: str | Path, roster: Sequence[str] | None = None) -> Marks:
    """Checks every submission and writes marks.csv, index.html, students/*.html and figures/*.png into a folder.

    Of several submissions of one student the one packed last counts; its page and the page of the class name the others.

    Args:
        roster: all students' ids, to find out who handed in nothing. Case and spaces around an id do not count.

    Raises:
        LabError: the folder cannot be written to.
    """
    folder = files.make_folder(Path(out))
    chosen = _last_of_each(submissions)
    counted = [own[-1] for own in chosen.values()]
    expectations = expect(counted, assignment)
    marked = [_mark(own[-1], own[:-1], expectations) for own in through(list(chosen.values()), "students' submissions checked")]
    missing = [student for student in roster or () if id_key(student) not in chosen]
    pairs = alike(counted)
    rows = [one.row for one in marked]
    files.write_text(folder / "marks.csv", _csv(rows))
    pictures = _pictures(marked)
    for name, picture in pictures.items():
        picture.save(files.make_folder(folder / "figures") / f"{name}.png")
    shared = {"assignment": assignment, "methods": expectations.methods, "worth": expectations.exercises, "names": METHOD_NAMES}
    shared |= {"fine": FINE, "look": LOOK, "wrong": WRONG, "signs": {FINE: "✓ fine", LOOK: "? look", WRONG: "✗ wrong"}}
    page = _template("class.html.jinja").render(shared, marked=marked, pairs=pairs, missing=missing, pictures=pictures, roster=roster)
    files.write_text(folder / "index.html", scrubbing.without_secrets(page))
    page, medians = _template("student.html.jinja"), _medians(marked)
    for one in marked:
        text = scrubbing.without_secrets(page.render(shared, one=one, medians=medians))  # an unpacked run directory was not scrubbed
        files.write_text(files.make_folder(folder / "students") / one.page, text)
    wrong = {one.submission.student: [found.says for found in one.findings if found.state == WRONG] for one in marked}
    return Marks(rows, {student: said for student, said in wrong.items() if said}, pairs, folder, missing)


def _last_of_each(submissions: Sequence[Submission]) -> dict[str, list[Submission]]:
    """Student -> submissions, the one that counts last; students in alphabetical order."""
    found: dict[str, list[Submission]] = {}
    for submission in submissions:
        found.setdefault(id_key(submission.student), []).append(submission)
    return {student: sorted(found[student], key=lambda one: moment(one.packed) or LONG_AGO) for student in sorted(found)}


def _mark(submission: Submission, left_out: list[Submission], expectations: Expectations) -> _Marked:
    methods, worth = expectations.methods, expectations.exercises
    records, found = finished(submission, methods), states(submission, worth)
    findings = verify(submission, expectations.assignment, expectations)
    counts = Counter(finding.state for finding in findings)
    numbers = {
        method: {
            "ROUGE-1": _rouge1(submission, method, record),
            "minutes": minutes({method: record}),
            "peak memory GB": peak_memory({method: record}),
        }
        for method, record in records.items()
    }
    row = {
        "student": submission.student,
        "verdict": _verdict(counts),
        "wrong": counts[WRONG],
        "look": counts[LOOK],
        "points": points(submission, worth),
        "of": sum(worth.values()),
        **{f"ROUGE-1 {METHOD_NAMES[method]}": _rounded(at(numbers, f"{method}.ROUGE-1"), 2) for method in methods},
        "minutes": _rounded(minutes(records), 1),
        "peak memory GB": _rounded(peak_memory(records), 2),
        **found,
        "submission": submission.name,
        "left out": ", ".join(one.name for one in left_out),
    }
    return _Marked(submission, findings, row, f"{_file_name(submission.student)}.html", found, numbers, left_out)


def _rouge1(submission: Submission, method: str, record: dict) -> float | None:
    """As its summaries give it; as recorded only where these are missing."""
    again = recounted(submission.predictions.get(method, []))
    return fmean(again["rouge1"]) if again else number(at(record, "metrics.rouge1.mean"))


def _verdict(counts: Mapping[str, int]) -> str:
    said = [f"{counts[state]} {words}" for state, words in ((WRONG, "wrong"), (LOOK, "to look at")) if counts[state]]
    return ", ".join(said) or "in order"


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _file_name(student: str) -> str:
    """A name that every file system takes, the same every time. A hash sets apart students whose names it had to change."""
    plain = unicodedata.normalize("NFKD", id_key(student)).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40]
    if safe == student and not DEVICES.fullmatch(safe):
        return safe
    return f"{safe or 'student'}-{hashlib.sha256(writable(id_key(student)).encode()).hexdigest()[:8]}"


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table with the mark that tells Excel of UTF-8; no cell of it is a formula."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(rows[0] if rows else ["student"])
    writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return "\ufeff" + table.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return FORMULA.sub("'", printable(value))


def _medians(marked: Sequence[_Marked]) -> dict[str, dict[str, float]]:
    """Method -> number -> median of the class."""
    return {
        method: {name: median(values) for name in ("ROUGE-1", "minutes", "peak memory GB") if (values := _values(marked, name).get(method))}
        for method in {method for one in marked for method in one.numbers}
    }


def _values(marked: Sequence[_Marked], name: str) -> dict[str, list[float]]:
    """Method -> one number for each student who has it."""
    found: dict[str, list[float]] = {}
    for method in METHOD_NAMES:
        values = [one.numbers[method][name] for one in marked if at(one.numbers, f"{method}.{name}") is not None]
        if values:
            found[method] = values
    return found


def _pictures(marked: Sequence[_Marked]) -> dict[str, Picture]:
    """The figures of the class by file name, as far as there is something to show."""
    made = {}
    for name, what in (("scores", "ROUGE-1"), ("time", "minutes"), ("memory", "peak memory GB")):
        if values := _values(marked, what):
            made[name] = figures.spread(values, what)
    counts: dict[str, Counter[str]] = {}
    for one in marked:
        for exercise, state in one.states.items():
            counts.setdefault(exercise, Counter())[state] += 1
    if counts:
        made["exercises"] = figures.exercises(counts)
    return made


def _template(name: str):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )  # fmt: skip
    environment.filters["data_uri"] = lambda svg: "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    return environment.get_template(name)
