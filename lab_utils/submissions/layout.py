"""What a submission is made of: the names of its files, how large they may be, and how their texts are read."""

from __future__ import annotations

import codecs
import json
from typing import Any

from lab_utils.config import METHODS
from lab_utils.course import NOTEBOOKS
from lab_utils.sheets import printable

SCHEMA = 1
ABOUT, ANSWERS = "submission.json", "answers.json"
FILES_OF_A_METHOD = ("run.json", "predictions.jsonl", "log.csv")
FOLDERS = {"exercises": ".json", "ratings": ".csv"}  # with the ending of the files inside
LARGEST = 20_000_000  # bytes of one file
DEEPEST = 100  # lists and objects inside one another in JSON


def kept_as(name: str) -> str | None:
    """The name that a file has in a submission; None for files that do not belong there. In a run directory notebooks lie at the top."""
    folder, _, last = name.rpartition("/")
    if name in (ABOUT, ANSWERS) or (folder in METHODS and last in FILES_OF_A_METHOD):
        return name
    if folder in FOLDERS and last.endswith(FOLDERS[folder]) and not last.startswith("."):
        return name
    if folder in ("", "notebooks") and last in {f"{notebook.name}.ipynb" for notebook in NOTEBOOKS}:
        return f"notebooks/{last}"
    return None


def in_words(name: str) -> str:
    """A file as sentences call it: `run.json of lora`."""
    folder, _, last = name.rpartition("/")
    return f"{last} of {folder}" if folder in METHODS else last


def decoded(raw: bytes) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte-order mark as editors on Windows write it.

    Raises:
        ValueError: it is neither.
    """
    if raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise ValueError("UTF-32")
    return raw.decode("utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")


def one_line(value: Any) -> str | None:
    """A name or a reason as it is kept: one line of text, or a number as text; None for anything else, and for nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return " ".join(printable(str(value)).split())[:100] or None


def as_json(value: Any) -> bytes:
    """A JSON file's content. Half of a surrogate pair becomes its escape, which JSON reads back."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def too_deep(value: Any) -> bool:
    """Whether more than `DEEPEST` lists and objects stand inside one another, so that code which follows them down may fail."""
    level = [value]
    for _ in range(DEEPEST):
        level = [below for item in level if isinstance(item, dict | list) for below in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True
