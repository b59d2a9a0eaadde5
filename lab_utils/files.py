"""Files that are written as a whole or not at all, and names that every system takes."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

from lab_utils.errors import LabError

DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)\s*(\..*)?$", re.IGNORECASE)  # what Windows takes for a device, whatever follows the dot


def make_folder(path: Path) -> Path:
    """The folder, made with all above it if need be.

    Raises:
        LabError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"Cannot write to '{path}' ({error.strerror}): choose another folder with --out (run_dir in a notebook).") from error
    return path


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8. A full disk leaves the old file; half of a surrogate pair is written as its escape.

    Raises:
        LabError: it cannot be written.
    """
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file beside its name, then gives it the name.

    Raises:
        LabError: it cannot be written; an older file is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LabError(f"Cannot write '{path}' ({error.strerror}): free some space or choose another folder with --out.") from error


def safe_name(name: str) -> str:
    """A name as every file system takes it: at most 60 letters and digits, with @ - _ . inside.

    Raises:
        LabError: nothing is left of it.
    """
    safe = re.sub(r"[^\w.@-]+", "-", unicodedata.normalize("NFC", name)).strip("-.")[:60]
    if not re.search(r"\w", safe):
        raise LabError(f"{name!r} makes no file name: give a name with letters or digits.")
    return f"{safe}_" if DEVICE.match(safe) else safe
