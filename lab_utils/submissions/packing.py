"""One small file of a student's work: records, predictions, states of exercises, notebooks and answers, without weights and secrets."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import lab_utils
from lab_utils import assignments, files, scrubbing
from lab_utils.config import METHODS
from lab_utils.course import NOTEBOOKS, Notebook
from lab_utils.errors import LabError
from lab_utils.sheets import shown
from lab_utils.submissions.collecting import Collected
from lab_utils.submissions.layout import ABOUT, FOLDERS, SCHEMA, as_json, one_line

EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold: equal work makes equal files


@dataclass(frozen=True)
class Packed:
    """A file to hand in. As text it says what a student must know of it.

    Attributes:
        missing: what an instructor may miss in it, a sentence each.
        removed: how many secrets and folders were taken out of the texts.
    """

    path: Path
    megabytes: float
    missing: list[str]
    removed: int

    def __str__(self) -> str:
        here = Path.cwd()
        path = self.path.relative_to(here) if self.path.is_relative_to(here) else self.path.name
        size = f"{self.megabytes:.1f} MB" if self.megabytes >= 0.1 else f"{self.megabytes * 1000:.0f} kB"
        removed = f", {self.removed} secrets and folders taken out" if self.removed else ""
        return "\n".join([f"To hand in: {path} ({size}{removed}).", *(f"- {sentence}" for sentence in self.missing)])


def pack(
    run_dir: str | Path,
    student: str | None = None,
    assignment: str | None = None,
    notebooks: str | Path | None = None,
    out: str | Path | None = None,
) -> Packed:
    """Writes `<assignment>-<student>.zip` and returns where it is and what is missing in it.

    Args:
        student, assignment: by default as the records say.
        notebooks: the folder with the notebooks that the student worked in. By default those of the run directory that were executed,
            and for the others what lies with outputs beside the notebook that calls this, in the current folder or in `notebooks` there,
            the last changed first.
        out: a file, or a folder for it; by default the folder beside the run directory.

    Raises:
        LabError: there is nothing to pack, it belongs to several students, to none or to a token, or it cannot be written.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise LabError(f"No folder '{run_dir}': give a run directory such as runs/first-week.")
    work = Collected(run_dir.resolve())
    records = {method: record for method in METHODS if isinstance(record := work.add_method(method), dict)}
    for folder, ending in FOLDERS.items():
        work.add_folder(folder, ending)
    if not work.contents:
        raise LabError(f"There is nothing to hand in in '{run_dir}': run the notebooks first, or give another run directory.")
    student = _the_one("student", student, records, work.missing)
    if student is None:
        raise LabError("The records do not say whose they are: give your id with --student.")
    assignment = _the_one("assignment", assignment and re.sub(r"\.ya?ml$", "", Path(str(assignment)).name), records, work.missing)
    scrubbing.refuse({"student": student, "assignment": assignment})
    target = _target(out, run_dir, f"{files.safe_name(assignment or 'submission')}-{files.safe_name(student)}.zip")
    offered = _offered(records, assignment)
    work.missing += _missing_runs(offered, records, work.contents)
    work.add_notebooks(notebooks, [notebook.name for notebook in offered if notebook.method in (None, *records)])
    about = {
        "schema": SCHEMA,
        "student": student,
        "assignment": assignment,
        "packed": datetime.now(UTC).isoformat(timespec="seconds"),
        "lab": lab_utils.__version__,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in work.contents.items()},
    }
    content = _zipped({ABOUT: as_json(about), **work.contents})
    files.make_folder(target.parent)
    files.write_bytes(target, content)
    return Packed(target, len(content) / 1e6, work.missing, work.scrubber.removed)


def _the_one(what: str, given: str | None, records: dict[str, dict], missing: list[str]) -> str | None:
    """The student or the assignment that was given, or else that the records name; a difference between the two is noted.

    Raises:
        LabError: the records name several.
    """
    named = {method: found for method, record in records.items() if (found := one_line(record.get(what)))}
    if len({name.casefold() for name in named.values()}) > 1:
        which = ", ".join(f"{method} '{shown(name)}'" for method, name in named.items())
        raise LabError(f"The records name more than one {what} ({which}): give a run directory in which all methods are of the same.")
    recorded = next(iter(named.values()), None)
    given = one_line(given)
    if given and recorded and given.casefold() != recorded.casefold():
        missing.append(f"The records name the {what} '{shown(recorded)}', and this file is for '{shown(given)}'.")
    return given or recorded


def _target(out: str | Path | None, run_dir: Path, name: str) -> Path:
    if out is None:
        return run_dir.resolve().parent / name
    out = Path(out).resolve()
    return out if out.suffix.lower() == ".zip" and not out.is_dir() else out / name


def _offered(records: dict[str, dict], assignment: str | None) -> list[Notebook]:
    """The notebooks that the assignment hands out; of one that is not on this machine, those that were begun; without any, the recipe's."""
    if assignment:
        with suppress(LabError):
            return assignments.load(assignment).notebooks
        return [notebook for notebook in NOTEBOOKS if notebook.method in (None, *records)]
    recipes = [record["config"].get("recipe") for record in records.values() if isinstance(record.get("config"), dict)]
    recipe = next((recipe for recipe in recipes if isinstance(recipe, dict)), dict.fromkeys(METHODS, True))
    return [notebook for notebook in NOTEBOOKS if notebook.method in (None, "zero_shot") or recipe.get(notebook.method)]


def _missing_runs(offered: list[Notebook], records: dict[str, dict], packed: Iterable[str]) -> Iterator[str]:
    """A sentence for each method without a record, without an end, or without predictions."""
    for notebook in offered:
        if notebook.method and notebook.method not in records:
            yield f"There is no record of {notebook.method}: run notebook {notebook.name}."
    for method, record in records.items():
        if record.get("status") != "finished":
            reason = f" ({found})" if (found := one_line(record.get("error"))) else ""
            yield f"{method} is {shown(str(record.get('status')))}, not finished{reason}: run its notebook again."
        elif f"{method}/predictions.jsonl" not in packed:
            yield f"{method} has no predictions.jsonl: run its notebook again."


def _zipped(contents: dict[str, bytes]) -> bytes:
    """A zip of these files, in their order. Equal contents make equal files on every system."""
    block = io.BytesIO()
    with zipfile.ZipFile(block, "w") as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr, entry.compress_type = 3, 0o100644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return block.getvalue()
