"""What is prepared once and kept: converted models and tokenised data."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lab_utils import environment, files
from lab_utils.errors import LabError
from lab_utils.files import sha256

MANIFEST = "manifest.json"  # in a prepared folder: size and SHA-256 of each of its files


def folder() -> Path:
    """Where prepared things are kept: `LAB_CACHE`, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "summarization-lab"
    return Path(os.environ.get("LAB_CACHE", default))


def prepared(name: str, write: Callable[[Path], None], needs: str = "1 GB") -> Path:
    """The cache folder of that name, written on first use, and again where it is not as it was written, which is said.

    It is written under another name, so that a half-written one is never used. What a killed process left is removed.

    Raises:
        LabError: it cannot be written, or a damaged one cannot be removed.
    """
    target = folder() / name
    if _is_whole(target):
        return target
    unfinished = files.unfinished(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        files.clear_unfinished(target.parent)
        unfinished.mkdir()
    except OSError as error:
        raise LabError(
            f"Cannot write to the cache folder ({error.strerror or error}): free some space there or set LAB_CACHE to another folder."
        ) from error
    try:
        with files.system_errors():
            write(unfinished)
            _list_files(unfinished)
            unfinished.chmod(0o755)
            _put(unfinished, target)
    except OSError as error:
        reason = error.strerror or error
        raise LabError(f"'{target.name}' could not be prepared in the cache ({reason}): it needs {needs}; set LAB_CACHE.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def damage(target: Path) -> str | None:
    """What is wrong with a prepared folder, in words; None where all its files are there, with the bytes that were written."""
    try:
        listed = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        expected = {name: (entry["size"], entry["sha256"]) for name, entry in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "there is no list of its files"
    name = ""
    try:
        for name, (size, _) in expected.items():
            if (found := (target / name).stat().st_size) != size:
                return f"{name} has {found:,} bytes, not {size:,}"
        for name, (_, digest) in expected.items():
            if sha256(target / name) != digest:
                return f"{name} is not as it was written"
    except OSError as error:
        return f"{name} cannot be read, {error.strerror or error}"
    return None


def known_hash(path: Path) -> str | None:
    """SHA-256 of a file of the cache, as `prepared` compared it; None for a file that lies elsewhere."""
    if not path.is_relative_to(folder()):
        return None
    try:
        return json.loads((path.parent / MANIFEST).read_text(encoding="utf-8"))[path.name]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _list_files(target: Path) -> None:
    listed = {
        path.relative_to(target).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(target.rglob("*"))
        if path.is_file()
    }
    (target / MANIFEST).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def _is_whole(target: Path) -> bool:
    """Whether it is there as it was written. A damaged one is removed."""
    if not target.is_dir():
        return False
    checked = target.stat().st_ino
    if (wrong := damage(target)) is None:
        return True
    environment.say(f"'{target.name}' in the cache is damaged ({wrong}): it is prepared again.")
    aside = files.unfinished(target)
    try:
        if target.stat().st_ino == checked:  # else another process prepared it meanwhile
            target.rename(aside)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LabError(
            f"'{target.name}' in the cache is damaged ({wrong}) and cannot be replaced ({error.strerror or error}): "
            "delete it, or set LAB_CACHE to another folder."
        ) from error
    shutil.rmtree(aside, ignore_errors=True)
    return False


def _put(unfinished: Path, target: Path) -> None:
    """Gives the folder its name, unless another process prepared the same meanwhile."""
    while True:
        try:
            unfinished.rename(target)
            return
        except OSError:
            if not target.is_dir():
                raise
            if _is_whole(target):
                return
