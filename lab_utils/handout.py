"""What a class is given: notebooks with an assignment's values in them, a brief, and the instructor's key."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab_utils import assignments, budget, check, course, editions, expected, files, plots
from lab_utils.assignments import Assignment
from lab_utils.errors import LabError

WRITTEN = ".lab.json"  # what the lab wrote into a folder, so that it replaces nothing that somebody changed
HEADINGS = {"student", "students", "id", "student id", "student_id", "username", "user", "email"}
GITHUB = re.compile(r"(?P<owner>[\w.-]+)/(?P<repository>[\w.-]+)/(?P<branch>[\w.-]+)(?:/(?P<folder>[\w./-]+?))?/?")


def write(
    assignment: str | None, out: str | Path, students: Sequence[str] = (), github: str | None = None, force: bool = False
) -> list[Path]:
    """Writes an assignment's folders `student`, `solution` and `instructor`; returns the files' paths.

    Args:
        assignment: its name or YAML file; None: the notebooks with their default parameters, and no brief.
        students: ids; each gets a folder of its own under `student`, with the values that the assignment chooses for it.
        github: "owner/repository/branch/folder", where `out` will stand; notebooks and brief then have links that open them.
        force: replace files that were changed, too.

    Raises:
        LabError: the assignment does not fit, it varies and there are no students, or `out` holds files that somebody changed; then
            nothing is written.
    """
    out = Path(out)
    given = assignments.load(assignment) if assignment else None
    if given and given.varies and not students:
        raise LabError(f"Assignment {given.name} gives each student values of their own: give the ids with --students FILE, one a line.")
    folders = _folders(students)
    place = _place(github)
    texts: dict[Path, str] = {}
    for student, folder in folders.items() or [(None, "student")]:
        texts |= _notebooks(given, "student", folder, student, place)
        if given:
            texts |= _brief(given, folder, student, place)
    for edition in ("solution", "instructor"):
        texts |= _notebooks(given, edition, edition)
    if given:
        texts[Path("instructor/marking.md")] = marking_guide(given)
        if given.varies:
            texts[Path("instructor/values.csv")] = _choices(given, students)
    return keep(out, texts, force)


def roster(path: str | Path) -> list[str]:
    """Ids of students: the first column of a CSV file, or a line each.

    Raises:
        LabError: no such file, no id, or one id twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        rows = list(csv.reader(io.StringIO(text)))
    except (OSError, ValueError, csv.Error) as error:
        raise LabError(
            f"'{path}' cannot be read as UTF-8 text ({getattr(error, 'strerror', None) or error}): give a file with an id a line."
        ) from error
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        student = row[0].strip() if row else ""
        if not student or student.startswith("#") or (number == 1 and student.casefold() in HEADINGS):
            continue
        if assignments.id_key(student) in found:
            raise LabError(f"'{path}', line {number}: student '{student}' is there a second time: each id can stand there once.")
        found[assignments.id_key(student)] = student
    if not found:
        raise LabError(f"'{path}' names no student: write an id a line.")
    return list(found.values())


def _folders(students: Sequence[str]) -> dict[str | None, str]:
    """A folder for each student, by id."""
    found = {student: f"student/{files.safe_name(student)}" for student in students}
    if len(set(found.values())) < len(found):
        twice = [student for student in students if list(found.values()).count(found[student]) > 1]
        raise LabError(
            f"Students {', '.join(twice)} would share a folder ({found[twice[0]]}): give them ids that differ in letters or digits."
        )
    return found


# --- notebooks ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A folder on GitHub."""

    owner: str
    repository: str
    branch: str
    folder: str

    def links(self, path: str) -> dict[str, str]:
        """Addresses that open a notebook, by the service's name."""
        file = f"{self.owner}/{self.repository}/blob/{self.branch}/" + "/".join(filter(None, (self.folder, path)))
        return {
            "Colab": f"https://colab.research.google.com/github/{file}",
            "Kaggle": f"https://kaggle.com/kernels/welcome?src=https://github.com/{file}",
        }


def _place(github: str | None) -> Place | None:
    if github is None:
        return None
    found = GITHUB.fullmatch(github.removeprefix("https://github.com/").replace("/tree/", "/", 1))
    if not found:
        raise LabError(f"--github takes owner/repository/branch/folder, for example ada/course/main/week-1; got '{github}'.")
    return Place(**{name: part or "" for name, part in found.groupdict().items()})


def _notebooks(
    given: Assignment | None, edition: str, folder: str, student: str | None = None, place: Place | None = None
) -> dict[Path, str]:
    import nbformat

    values = given.values(student) if given else {}
    made = {}
    for notebook in given.notebooks if given else course.NOTEBOOKS:
        path = Path(folder) / f"{notebook.name}.ipynb"
        found = editions.make(course.source(notebook), edition, values.get(notebook.name))
        if place:
            title, *rest = found.cells[0].source.split("\n")
            found.cells[0].source = "\n".join([title, "", _links(place, path.as_posix()), *rest])
        made[path] = nbformat.writes(found) + "\n"
    return made


def _links(place: Place, path: str) -> str:
    return " · ".join(f"[Open in {service}]({address})" for service, address in place.links(path).items())


# --- words --------------------------------------------------------------------------------------------------------------------


def _brief(given: Assignment, folder: str, student: str | None, place: Place | None) -> dict[Path, str]:
    """What students read first, in Markdown and as a page."""
    text = brief(given, student, place, folder)
    return {Path(folder) / "brief.md": text, Path(folder) / "brief.html": page(given.title, text)}


def brief(given: Assignment, student: str | None = None, place: Place | None = None, folder: str = "student") -> str:
    """One page for students, in Markdown: what to do, what it takes, what counts, how to hand in."""
    values = given.values(student)
    needed = budget.estimate([(notebook, values[notebook.name]) for notebook in given.notebooks])
    points = given.exercises
    rows = []
    for notebook, row in zip(given.notebooks, needed.rows, strict=True):
        own = [exercise for name, exercise in check.EXERCISES.items() if exercise.notebook == notebook.name and name in points]
        links = _links(place, f"{folder}/{notebook.name}.ipynb") if place else ""
        rows.append(asdict(row) | {"notebook": notebook.name, "exercises": len(own), "links": links})
    return _rendered(
        "brief.md.jinja", given=given, student=student, rows=rows, needed=needed, own=_own_values(given, values), points=points
    )


def _own_values(given: Assignment, values: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The parameters that the assignment sets, by notebook; those that all notebooks share under an empty name."""
    found = {}
    for notebook in given.notebooks:
        defaults = course.parameters_of(notebook)
        own = {name: value for name, value in values[notebook.name].items() if value != defaults[name]}
        found[notebook.name] = {name: value for name, value in own.items() if name not in ("assignment", "student", "run_dir")}
    shared = {
        name: value for name, value in found[given.notebooks[0].name].items() if all(own.get(name) == value for own in found.values())
    }
    return {"": shared} | {name: {n: v for n, v in own.items() if n not in shared} for name, own in found.items()}


def marking_guide(given: Assignment) -> str:
    """For instructors, in Markdown: what counts, what good work shows, and which scores to expect."""
    exercises = [(check.EXERCISES[name], points) for name, points in given.exercises.items()]
    bands = {}
    if given.sheet.recipe in expected.recipes():
        bands = {plots.METHOD_NAMES[method]: found for method, found in expected.bands(given.sheet.recipe).items()}
    return _rendered("marking.md.jinja", given=given, exercises=exercises, bands=bands, measures=expected.MEASURES)


def _rendered(template: str, **facts: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lab_utils", ""), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # Markdown
    return environment.get_template(template).render(**facts).rstrip() + "\n"


def page(title: str, markdown: str) -> str:
    """Markdown as a page that opens without a network. HTML inside is shown, not obeyed."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    environment = Environment(loader=PackageLoader("lab_utils", ""), undefined=StrictUndefined, autoescape=True)
    return environment.get_template("page.html.jinja").render(title=title, body=body)


def _choices(given: Assignment, students: Sequence[str]) -> str:
    """What the variation chose, a row for each student, as CSV."""
    file = io.StringIO()
    rows = [{"student": student, **given.choice(student)} for student in students]
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


# --- files --------------------------------------------------------------------------------------------------------------------


def keep(out: Path, texts: dict[Path, str], force: bool) -> list[Path]:
    """Writes the files, unless one of them stands there and is not as the lab wrote it."""
    record = out / WRITTEN
    before = _written(record)
    changed = [
        out / path
        for path, text in texts.items()
        if (out / path).exists()
        and _digest(out / path) not in (before.get(path.as_posix()), _digest_of(text.encode("utf-8", "backslashreplace"), path))
    ]
    if changed and not force:
        raise LabError(
            f"{', '.join(map(str, changed))}: changed since the lab wrote it, or written by somebody else. Nothing was written; "
            "move such files away, choose another folder with --out, or replace them with --force."
        )
    for path, text in texts.items():
        files.make_folder((out / path).parent)
        files.write_text(out / path, text)
    digests = {path.as_posix(): _digest(out / path) for path in texts}
    files.write_text(record, json.dumps(before | digests, indent=1) + "\n")
    return [out / path for path in texts]


def _written(record: Path) -> dict[str, str]:
    """Hashes of what was written before; without those that cannot be read, so that the files they belong to count as changed."""
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _digest(path: Path) -> str:
    return _digest_of(path.read_bytes(), path)


def _digest_of(content: bytes, path: Path) -> str:
    """A hash of a file; of a notebook's cells and outputs alone, since opening and saving it changes neither."""
    import nbformat

    if path.suffix == ".ipynb":
        try:
            cells = nbformat.reads(content.decode(), as_version=4).cells
            content = json.dumps([(cell.cell_type, cell.source, cell.get("outputs", [])) for cell in cells]).encode()
        except Exception:  # nbformat raises many kinds for a broken file; what cannot be read is not as the lab wrote it
            return "broken"
    return hashlib.sha256(content).hexdigest()[:16]
