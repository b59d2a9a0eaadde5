"""The files of human evaluation: one CSV per rater, a line per answer, readable after a spreadsheet has saved it again.

A line's `task` is `rate` (four marks and a kind of error for the summary `item`) or `choose` (`preferred` is `item` or `other`).
Summaries go by keys that name no system, so that whoever opens a file stays blind. An empty cell is a missing answer.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from lab_utils.errors import LabError

SCALES = {
    "fluency": "reads like natural language (1 hardly readable, 5 no flaw)",
    "faithfulness": "says only what the document says (1 mostly wrong, 5 nothing wrong)",
    "coverage": "tells what matters in the document (1 misses the point, 5 leaves nothing important out)",
    "conciseness": "wastes no words (1 mostly repetition or side matters, 5 every word is needed)",
}
ERRORS = {
    "none": "no error",
    "who": "the wrong person says or does it",
    "what": "the wrong act, thing or reason",
    "number": "a wrong number, time or amount",
    "invented": "something that the document does not say at all",
}
MARKS = ("1", "2", "3", "4", "5")
COLUMNS = ("rater", "task", "document", "item", "other", *SCALES, "error", "preferred")
TIE = "tie"  # a model's inconsistent choice; people are not offered it
MODEL = "model-"  # how the names of judging models begin
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_KEY = re.compile(r"s[0-9a-f]{12}")


def key(document_id: str, summary: str) -> str:
    """What a summary is called in the files: a hash that names no system. Systems that wrote the same words share it.

    It begins with a letter, since spreadsheets turn names such as 12e34567 into numbers.
    """
    text = f"{document_id}\n{' '.join(summary.split())}"
    return "s" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True)
class Row:
    """One answered item. What was skipped is None (or, among the scores, absent)."""

    rater: str
    task: str
    item: str
    other: str = ""
    scores: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    preferred: str | None = None  # a key, or `tie`

    @property
    def identity(self) -> tuple:
        return self.task, frozenset({self.item, self.other})

    @property
    def by_model(self) -> bool:
        return self.rater.startswith(MODEL)

    @property
    def overall(self) -> float | None:
        return fmean(self.scores.values()) if len(self.scores) == len(SCALES) else None


def rater_name(given: str, judge: bool = False) -> str:
    """The name as files and rows carry it: in small letters, since some file systems do not tell Anna from anna.

    Args:
        judge: whether it is a model's, which gets the beginning that sets it apart.

    Raises:
        LabError: other characters than letters, digits, - and _, or a person's name that is kept for models.
    """
    name = given.strip().lower()
    if judge:
        name = MODEL + re.sub(r"[^a-z0-9_-]+", "-", name)[:30]
    elif name.startswith(MODEL):
        raise LabError(f"Names that begin with '{MODEL}' are kept for judging models: choose another than '{shown(name)}'.")
    if not _NAME.fullmatch(name):
        raise LabError(f"A rater's name has 1 to 40 letters (a to z), digits, - or _ and begins with no sign; got '{shown(given)}'.")
    return name


def file_of(run_dir: str | Path, rater: str) -> Path:
    return Path(run_dir) / "ratings" / f"{rater}.csv"


@dataclass
class Sheet:
    """A rater's file as it lies there, whoever saved it last."""

    rows: list[Row] = field(default_factory=list)
    columns: Sequence[str] = COLUMNS
    delimiter: str = ","
    torn_at: int | None = None  # where a half-written last line begins, in bytes
    ended: bool = True  # by a line break
    empty: bool = True


def parse(path: Path) -> Sheet:
    """Reads a file of ours, or one that a spreadsheet saved again (byte-order mark, semicolons, CRLF, quotes, lost trailing commas)."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise LabError(f"Cannot read the ratings '{path.name}' ({error.strerror}): check the file and its rights.") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise LabError(f"{path.name}, line {line}: this is not UTF-8 text; save it as 'CSV UTF-8', not as a workbook.") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    whole, last_break, tail = text.rpartition("\n")
    sheet = Sheet(delimiter=_delimiter(text), ended=not tail)
    lines = csv.reader(io.StringIO(whole + last_break, newline=""), delimiter=sheet.delimiter, strict=True)
    place = 0
    try:
        for cells in lines:
            place = lines.line_num
            _take(sheet, cells, f"{path.name}, line {place}")
    except csv.Error as error:
        raise LabError(f"{path.name}, line {place + 1}: quotes or separators do not fit ({error}); mend that line.") from error
    if tail and not _take_last(sheet, tail):
        sheet.torn_at = max(raw.rfind(b"\n"), raw.rfind(b"\r")) + 1
    return sheet


def _take_last(sheet: Sheet, tail: str) -> bool:
    """A last line without line break into the sheet, if it is whole: an editor may have left the break out, or a process was killed."""
    try:
        cells = next(csv.reader([tail], delimiter=sheet.delimiter, strict=True))
        if sheet.empty or len(cells) < len(sheet.columns):
            return False
        last = _row(dict(zip(sheet.columns, cells, strict=True)), "")
    except (LabError, csv.Error, ValueError):
        return False
    if last.task == "choose" and last.preferred is None:
        return False
    sheet.rows.append(last)
    return True


def _delimiter(text: str) -> str:
    head = next((line for line in text.splitlines() if line.strip() and not line.lower().startswith("sep=")), "")
    return max(",;\t", key=head.count)


def _take(sheet: Sheet, cells: Sequence[str], place: str) -> None:
    """One line into the sheet: its header, or a row."""
    cells = [cell.strip() for cell in cells]
    if not any(cells) or (len(cells) <= 2 and cells[0].lower().startswith("sep=")):
        return
    if sheet.empty:
        names = [cell.lower() for cell in cells]
        if missing := [name for name in COLUMNS if name not in names]:
            raise LabError(f"{place}: no column {', '.join(missing)}; the first line must be {','.join(COLUMNS)}.")
        sheet.columns, sheet.empty = names, False
        return
    if [cell.lower() for cell in cells] == list(sheet.columns):  # files joined end to end
        return
    if len(cells) > len(sheet.columns):
        raise LabError(f"{place}: {len(cells)} cells for {len(sheet.columns)} columns; mend that line.")
    sheet.rows.append(_row(dict(zip(sheet.columns, [*cells, *[""] * len(sheet.columns)], strict=False)), place))


def _row(cells: Mapping[str, str], place: str) -> Row:
    """A checked row; the error names line and column, what stands there and what may."""

    def wrong(column: str, accepted: str) -> LabError:
        return LabError(f"{place}, column {column}: '{shown(cells[column])}' stands there; accepted: {accepted}.")

    rater, task = cells["rater"].lower(), cells["task"].lower()
    if not _NAME.fullmatch(rater):
        raise wrong("rater", "letters, digits, - and _")
    if task not in ("rate", "choose"):
        raise wrong("task", "rate or choose")
    item, other = cells["item"], cells["other"]
    if not _KEY.fullmatch(item):
        raise wrong("item", "a key as the form wrote it, s and twelve digits or letters")
    if task == "choose" and (not _KEY.fullmatch(other) or other == item):
        raise wrong("other", "the key of a second summary")
    scores = {}
    for scale in SCALES:
        if cells[scale] in MARKS:
            scores[scale] = int(cells[scale])
        elif cells[scale]:
            raise wrong(scale, "a whole number from 1 to 5, or nothing")
    error, preferred = cells["error"].lower() or None, cells["preferred"] or None
    if error is not None and error not in ERRORS:
        raise wrong("error", f"{', '.join(ERRORS)}, or nothing")
    if task == "rate":
        return Row(rater, task, item, "", scores, error)
    if preferred not in (item, other, None) and not (preferred == TIE and rater.startswith(MODEL)):
        raise wrong("preferred", f"{item}, {other}, or nothing")
    return Row(rater, task, item, other, preferred=preferred)


def append(path: Path, cells: Mapping[str, str]) -> None:
    """Adds one line, in the form that the file has, and waits until it lies on the disk. Half a line that a killed process left is cut off.

    The file holds keys, marks and names of fixed kinds only. The document's id stands there for people, freed of everything that a
    spreadsheet could take for a formula.
    """
    cells = dict(cells) | {"document": re.sub(r"[^A-Za-z0-9_.-]|^-", "_", cells["document"])[:60]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet = parse(path) if path.exists() else Sheet()
        if sheet.torn_at is not None:
            os.truncate(path, sheet.torn_at)
        block = io.StringIO()
        writer = csv.DictWriter(block, sheet.columns, restval="", delimiter=sheet.delimiter, lineterminator="\n")
        if sheet.empty:
            writer.writeheader()
        elif not sheet.ended and sheet.torn_at is None:
            block.write("\n")
        writer.writerow(cells)
        with path.open("ab") as file:
            file.write(block.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise LabError(
            f"Cannot write '{path.name}' in '{path.parent}' ({error.strerror}): nothing of this item is kept. Close it elsewhere, "
            "free some space, or copy the run directory to a place where you may write."
        ) from error


def torn(path: Path) -> str:
    return f"{path.name}: the last line was cut off while it was written, and is left out; its item will be asked again."


def printable(text: str) -> str:
    """The text without what could steer a terminal or break a form: control characters, lone surrogates, switches of direction."""
    text = re.sub(r"\r\n?|[\u2028\u2029\x0b\x0c\x85]", "\n", text)
    return re.sub("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]", "\ufffd", text)


def shown(text: str) -> str:
    """The beginning of a text for one line of a message."""
    return " ".join(printable(text).split())[:40]


@dataclass(frozen=True)
class Ratings:
    rows: list[Row]
    notes: list[str]


def read(run_dir: str | Path) -> Ratings:
    """The answers of all raters' files in the run directory, people's and models', in an order that is the same however the lines lie.

    Where a rater answered one item twice, the later line counts.

    Raises:
        LabError: a value that is not accepted, by file, line and column.
    """
    merged: dict[tuple, Row] = {}
    notes = []
    for path in sorted((Path(run_dir) / "ratings").glob("*.csv")):
        if path.name.startswith((".", "~")):  # what editors leave beside an open file
            continue
        sheet = parse(path)
        if sheet.torn_at is not None:
            notes.append(torn(path))
        changed = 0
        for row in sheet.rows:
            former = merged.get((row.rater, row.identity))
            changed += former is not None and former != row
            merged[row.rater, row.identity] = row
        if changed:
            notes.append(f"{path.name}: {changed} items were answered before, otherwise; the later answers count.")
    return Ratings(sorted(merged.values(), key=lambda row: (row.item, row.other, row.rater)), notes)
