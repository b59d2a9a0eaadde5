"""A second place for what a session must not lose, such as a folder in Google Drive: the environment variable `LAB_MIRROR` names it.

Everything is written where the run is, which is fast, and copied when it is complete. Nothing here stops a run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lab_utils.chores import Chore
from lab_utils.errors import LabError

HIDDEN = shutil.ignore_patterns(".*")  # what is being written
_copying = Chore(at_once=True)


def place_of(method_folder: Path) -> Path | None:
    """Where the copy of a method's folder lies, under the names of run and method; None without a mirror."""
    root = os.environ.get("LAB_MIRROR")
    return Path(root) / method_folder.resolve().parent.name / method_folder.name if root else None


def on_the_way(method_folder: Path, name: str, say: Callable[[str], None]) -> None:
    """Copies what is kept of an unfinished run, a file or a folder, unless the last copy was a moment ago or took long."""
    if place_of(method_folder) is not None and _copying.due:
        with _copying.doing():
            _copy(method_folder, name, say)


def finished(method_folder: Path, say: Callable[[str], None]) -> None:
    """Copies all that a finished run left, and removes what was copied on the way."""
    place = place_of(method_folder)
    if place is None:
        return
    names = [path.name for path in method_folder.iterdir() if not path.name.startswith(".")]
    for name in sorted(names, key=lambda name: name == "run.json"):  # the record last: it says that all is there
        _copy(method_folder, name, say)
    for path in place.iterdir() if place.is_dir() else []:
        if path.name not in names:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def fetch(method_folder: Path) -> None:
    """Copies a run back to a machine that has nothing of it, complete or not at all."""
    place = place_of(method_folder)
    if place is None or not place.is_dir() or method_folder.exists():
        return
    method_folder.parent.mkdir(parents=True, exist_ok=True)
    partial = method_folder.with_name(f".{method_folder.name}.fetched")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(place, partial, ignore=HIDDEN)
        partial.rename(method_folder)
    except OSError as error:
        reason = error.strerror or "some files"
        raise LabError(
            f"The copy of '{method_folder.name}' in LAB_MIRROR cannot be fetched ({reason}): mend it, or unset LAB_MIRROR."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy(method_folder: Path, name: str, say: Callable[[str], None]) -> None:
    """Replaces the copy of one file or folder: the new one stands complete before the old one goes."""
    source, target = method_folder / name, place_of(method_folder) / name
    partial, former = (target.with_name(f".{target.name}.{word}") for word in ("partial", "former"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in (partial, former):
            shutil.rmtree(leftover, ignore_errors=True)
        if not source.is_dir():
            shutil.copyfile(source, partial)
            partial.replace(target)
            return
        shutil.copytree(source, partial, ignore=HIDDEN)
        if target.exists():
            target.rename(former)
        partial.rename(target)
        shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        say(f"{name} could not be copied to LAB_MIRROR ({error.strerror or error}); it is safe here, and the run goes on.")
