"""Files that are written as a whole or not at all, and names that every system takes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        raise LabError(
            f"Cannot write to '{path}' ({error.strerror or error}): free some space, or choose another folder with --out "
            "(run_dir in a notebook)."
        ) from error
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
    temporary = unfinished(path)
    try:
        clear_unfinished(path.parent, path.name)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise LabError(
            f"Cannot write '{path}' ({error.strerror or error}): free some space or choose another folder with --out."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state(path: Path) -> str | None:
    """What tells a file from the same one changed: its content, since its time can be set back. None where it cannot be read."""
    try:
        return sha256(path)
    except OSError:
        return None


def unfinished(path: Path) -> Path:
    """A name beside that path for what is still being written: hidden, with the machine and the process that writes it."""
    return path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.{secrets.token_hex(4)}")


def clear_unfinished(folder: Path, name: str | None = None) -> None:
    """Removes from a folder what processes of this machine were writing when they were killed.

    The process decides and not the age, since a clock may have been moved. What other machines of a shared disk write is left alone.

    Args:
        name: of this name only.
    """
    import psutil

    pattern = re.compile(rf"\.{re.escape(name) if name else '.+'}\.{re.escape(_machine())}\.(\d{{1,9}})\.[0-9a-f]{{8}}")
    with os.scandir(folder) as entries:
        found = [(Path(entry.path), int(match[1])) for entry in entries if (match := pattern.fullmatch(entry.name))]
    for path, process in found:
        if psutil.pid_exists(process):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _machine() -> str:
    return re.sub(r"[^\w-]", "-", socket.gethostname())[:30]


@contextmanager
def system_errors() -> Iterator[None]:
    """Inside, what a compiled library says of the disk comes as the OSError that it is.

    safetensors, tokenizers and torch write past Python, and each has its own way to say that a disk is full: tokenizers raises a bare
    Exception.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if of_the_system := re.search(r"([^:\n]*) \(os error (\d+)\)", str(error)):
            raise OSError(int(of_the_system[2]), of_the_system[1].strip()) from error
        if isinstance(error, RuntimeError) and re.search(r"inline_container|PytorchStreamWriter", str(error)):
            raise OSError(None, "torch could not write all of it") from error
        raise


def safe_name(name: str) -> str:
    """A name as every file system takes it: at most 60 letters and digits, with @ - _ . inside.

    Raises:
        LabError: nothing is left of it.
    """
    safe = re.sub(r"[^\w.@-]+", "-", unicodedata.normalize("NFC", name)).strip("-.")[:60]
    if not re.search(r"\w", safe):
        raise LabError(f"{name!r} makes no file name: give a name with letters or digits.")
    first, dot, rest = safe.partition(".")
    return f"{first}_{dot}{rest}" if DEVICE.match(safe) else safe
