"""What students handed in, read back: from the zips of `packing`, from folders, and from the folders that learning platforms export."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lab_utils.config import METHODS
from lab_utils.errors import LabError
from lab_utils.progress import through
from lab_utils.sheets import shown
from lab_utils.submissions import answers, structure
from lab_utils.submissions.layout import ABOUT, ANSWERS, decoded, in_words, kept_as, one_line
from lab_utils.submissions.unpacking import IGNORED, Unpacked, unpack

MOODLE = "_assignsubmission_"  # in the names of the folders that it exports, after the student's
MOST = 50  # problems that are told of one submission


@dataclass(frozen=True)
class Submission:
    """One student's work as far as it can be read. What cannot is left out and named in `problems`, a sentence each.

    Attributes:
        name: of the file or folder; with the folder around it where a learning platform made that.
        student: as the submission says, else as a record does, else by the name.
        packed: when, as an ISO time in UTC.
        records: method -> run.json. A finished one has all that comparisons take from it (`structure`).
        predictions: method -> rows of id, prediction, references, tokens, stopped.
        exercises: exercise -> state and tries.
        answers: exercise -> the code of the cell that calls its check.
        notebooks: name -> the notebook's JSON.
        ratings: file name -> CSV text.
        megabytes: of the zip, or of the files that were read from a folder.
    """

    name: str
    student: str
    assignment: str | None
    packed: str | None
    records: dict[str, dict] = field(repr=False)
    predictions: dict[str, list[dict]] = field(repr=False)
    exercises: dict[str, dict] = field(repr=False)
    answers: dict[str, str] = field(repr=False)
    notebooks: dict[str, dict] = field(repr=False)
    ratings: dict[str, str] = field(repr=False)
    megabytes: float
    problems: list[str]


def read_all(paths: Sequence[str | Path]) -> list[Submission]:
    """The submissions in these files and folders, in order, each once.

    A folder is a submission itself, or it holds some: as zips or folders, or one level deeper, as learning platforms export them.

    Raises:
        LabError: a path does not exist, cannot be listed, or holds no submission.
    """
    found: dict[Path, str] = {}
    for path in map(Path, paths):
        inside = list(_handed_in(path))
        if not inside:
            raise LabError(f"There is no submission in '{path}': give zips that students handed in, or a folder of them.")
        for each, name in inside:
            found.setdefault(each.resolve(), name)
    return [_read(path, name) for path, name in through(list(found.items()), "submissions read")]


def read(path: str | Path) -> Submission:
    """One submission: a zip, an unpacked one, or a run directory. It never raises for what is wrong with it."""
    return _read(Path(path), Path(path).name)


def _read(path: Path, name: str) -> Submission:
    files = _Files(unpack(path))
    about = files.about()
    records = files.records()
    notebooks = files.notebooks()
    named = [one_line(value) for value in (about.get("student"), *(record.get("student") for record in records.values()))]
    assigned = [one_line(value) for value in (about.get("assignment"), *(record.get("assignment") for record in records.values()))]
    return Submission(
        name=name,
        student=next(filter(None, named), None) or _by_name(name),
        assignment=next(filter(None, assigned), None),
        packed=one_line(about.get("packed")),
        records=records,
        predictions=files.predictions(),
        exercises=files.exercises(),
        answers=files.answers(notebooks),
        notebooks=notebooks,
        ratings=files.ratings(),
        megabytes=files.unpacked.megabytes,
        problems=files.problems[:MOST] + ([f"There are {len(files.problems) - MOST} problems more."] if len(files.problems) > MOST else []),
    )


class _Files:
    """The contents of a submission, read as what they are; what is wrong goes into `problems`."""

    def __init__(self, unpacked: Unpacked):
        self.unpacked = unpacked
        self.problems = list(unpacked.problems)

    def about(self) -> dict:
        """submission.json, after a look whether the other files are those that it lists. A run directory has none."""
        about = self._json(ABOUT, partial(structure.problems, structure.ABOUT))
        if about is None:
            return {}
        contents, listed = self.unpacked.contents, about.get("files", {})
        for name, digest in listed.items():
            if name in contents and hashlib.sha256(contents[name]).hexdigest() != digest:
                self.problems.append(f"{shown(in_words(name))} was changed after it was packed.")
            elif name not in contents and kept_as(name) == name:
                self.problems.append(f"{shown(in_words(name))} is missing, though it was packed.")
        self.problems += [f"{shown(in_words(name))} was added after it was packed." for name in contents if name not in (*listed, ABOUT)]
        return about

    def records(self) -> dict[str, dict]:
        found = {m: self._json(f"{m}/run.json", partial(structure.record_problems, method=m)) for m in METHODS}
        return {method: record for method, record in found.items() if record is not None}

    def predictions(self) -> dict[str, list[dict]]:
        found = {method: self._rows(f"{method}/predictions.jsonl") for method in METHODS}
        return {method: rows for method, rows in found.items() if rows is not None}

    def exercises(self) -> dict[str, dict]:
        entries = [entry for name in self._names("exercises/") for entry in self._entries(name, structure.STATE)]
        return {exercise: {"state": noted["state"], "tries": noted.get("tries", 0)} for exercise, noted in entries}

    def answers(self, notebooks: dict[str, dict]) -> dict[str, str]:
        """From answers.json, or else from the notebooks."""
        if ANSWERS in self.unpacked.contents:
            return {exercise: answer["code"] for exercise, answer in self._entries(ANSWERS, structure.ANSWER)}
        return {exercise: answer["code"] for name, notebook in notebooks.items() for exercise, answer in answers.of(name, notebook).items()}

    def notebooks(self) -> dict[str, dict]:
        judge = partial(structure.problems, structure.NOTEBOOK)
        found = {Path(name).stem: self._json(name, judge) for name in self._names("notebooks/")}
        return {name: notebook for name, notebook in found.items() if notebook is not None}

    def ratings(self) -> dict[str, str]:
        found = {name.removeprefix("ratings/"): self._text(name) for name in self._names("ratings/")}
        return {name: text for name, text in found.items() if text is not None}

    def _names(self, folder: str) -> list[str]:
        return sorted(name for name in self.unpacked.contents if name.startswith(folder))

    def _rows(self, name: str) -> list[dict] | None:
        """A method's predictions; None where it has none, or where one of them is not as it must be."""
        text = self._text(name)
        if text is None:
            return None
        rows = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                row = self._value(line, f"{in_words(name)}, line {number},", partial(structure.problems, structure.PREDICTION))
                if row is None:
                    self.problems.append(f"{shown(in_words(name))} is left out as a whole.")
                    return None
                rows.append({field: row[field] for field in structure.FIELDS_OF_A_PREDICTION})
        if not rows:
            self.problems.append(f"{in_words(name)} is empty.")
        return rows or None

    def _entries(self, name: str, kind: TypeAdapter) -> Iterator[tuple[str, Any]]:
        """What a file says of each exercise, as far as it is of a kind."""
        for exercise, value in (self._json(name, partial(structure.problems, structure.NAMED)) or {}).items():
            said = f"{shown(in_words(name))}, exercise '{shown(exercise)}',"
            if self._fits(said, structure.problems(kind, value) if exercise.isidentifier() else ["its name is none"]):
                yield exercise, value

    def _json(self, name: str, judge: Callable[[Any], list[str]]) -> Any:
        """The value of a file; None where there is none, or where the judge finds something wrong."""
        text = self._text(name)
        return None if text is None else self._value(text, shown(in_words(name)), judge)

    def _value(self, text: str, said: str, judge: Callable[[Any], list[str]]) -> Any:
        try:
            value, odd = structure.loaded(text)
        except ValueError as error:
            self.problems.append(f"{said} cannot be read: {error}.")
            return None
        self.problems += [f"{said} holds {what}." for what in odd]
        return value if self._fits(said, judge(value)) else None

    def _fits(self, said: str, wrong: list[str]) -> bool:
        if wrong:
            self.problems.append(f"{said} cannot be used ({'; '.join(wrong)}).")
        return not wrong

    def _text(self, name: str) -> str | None:
        content = self.unpacked.contents.get(name)
        if content is None:
            return None
        try:
            return decoded(content)
        except ValueError:
            self.problems.append(f"{shown(in_words(name))} is no UTF-8 text: save it as UTF-8.")
            return None


def _handed_in(path: Path) -> Iterator[tuple[Path, str]]:
    """The submissions at a place, each with the name that it goes by."""
    if not path.exists():
        raise LabError(f"There is nothing at '{path}': give zips that students handed in, or a folder of them.")
    if not path.is_dir() or _is_one(path):
        yield path, path.name
        return
    for child in _listed(path):
        if _is_one(child):
            yield child, child.name
        elif child.is_dir():
            deeper = [each for each in _listed(child) if _is_one(each)]
            yield from ((each, f"{child.name}/{each.name}") for each in deeper)
            if not deeper and MOODLE in child.name:  # something else was handed in, and must not go unseen
                yield child, child.name


def _is_one(path: Path) -> bool:
    """Whether this is a zip, or a folder that looks like a submission or a run directory."""
    if not path.is_dir():
        return path.suffix.lower() == ".zip"
    return (path / "exercises").is_dir() or any((path / name).is_file() for name in (ABOUT, *(f"{method}/run.json" for method in METHODS)))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not IGNORED.search(path.name))
    except OSError as error:
        raise LabError(f"The folder '{folder}' cannot be listed ({error.strerror}): check its rights.") from error


def _by_name(name: str) -> str:
    """The student by the name of the file or folder: what stands before Moodle's numbers, or the folder around, or the name itself."""
    folder, _, last = name.partition("/")
    if MOODLE in folder:
        return folder.partition("_")[0]
    return folder if last else re.sub(r"\.zip$", "", folder, flags=re.IGNORECASE)
