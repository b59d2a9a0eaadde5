"""Files that are written as a whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lab_utils.errors import LabError


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
