"""The files of a zip or a folder that somebody handed in, as bytes. Nothing is written to disk; only what the lab packs is read.

A zip is a stranger's file: names, sizes, kinds and places of its entries may all be lies. What is odd is left out and named.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lab_utils.config import METHODS
from lab_utils.files import DEVICE
from lab_utils.sheets import shown
from lab_utils.submissions.layout import ABOUT, FOLDERS, LARGEST, in_words, kept_as

TOTAL = 200_000_000  # bytes of all files of a submission
MEMBERS = 2_000  # entries of a zip
DIRECTORY = 2_000_000  # bytes of a zip's table of contents
CHUNK = 1 << 16

IGNORED = re.compile(r"(^|/)(\.DS_Store|desktop\.ini|Thumbs\.db|\._[^/]*|__MACOSX(/.*)?)$", re.IGNORECASE)  # left by macOS and Windows
ARCHIVE = re.compile(r"\.(zip|7z|rar|tar|gz|tgz|bz2|xz|zst)$", re.IGNORECASE)
LINK = "a link to another place"

# What zipfile raises for a file that is no zip, is cut off, has wrong sums, or lies about sizes, places and methods.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, OverflowError, RuntimeError)


class _TooLarge(Exception):
    """A file holds more than the lab packs."""


@dataclass
class Unpacked:
    """What was found: contents by the names that they have in a submission, and what is wrong, a sentence each."""

    contents: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    megabytes: float = 0.0

    def fill(self, readers: dict[str, Callable[[], bytes]]) -> None:
        """Reads the files that belong into a submission, until they are too large together."""
        room = TOTAL
        for given, read in readers.items():
            name = kept_as(given)
            if name is None or name in self.contents:
                continue
            try:
                content = read()
            except _TooLarge:
                self.problems.append(f"{_said(name)} is left out, since it is larger than {LARGEST / 1e6:.0f} MB.")
                continue
            except ZIP_ERRORS as error:
                self.problems.append(f"{_said(name)} cannot be read ({_reason(error)}): ask for the file again.")
                continue
            room -= len(content)
            if room < 0:
                self.problems.append(
                    f"The files are larger than {TOTAL / 1e6:.0f} MB together: {_said(name)} and what follows is left out."
                )
                return
            self.contents[name] = content

    def refuse(self, refused: dict[str, list[str]]) -> None:
        """Notes what is left out, a sentence for each reason."""
        for reason, names in refused.items():
            some = ", ".join(f"'{shown(name)}'" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            self.problems.append(f"Left out, since it is {reason}: {some}.")


def unpack(path: Path) -> Unpacked:
    """The files of a zip or a folder. It never raises for what is in them."""
    found = Unpacked()
    try:
        if path.is_dir():
            _from_folder(path, found)
        else:
            _from_zip(path, found)
    except ZIP_ERRORS as error:
        found.problems.append(f"It cannot be read ({_reason(error)}): ask for the file again.")
    if not found.contents and not found.problems:
        found.problems.append("It holds nothing that the lab packs, such as lora/run.json: ask for the file that the lab made.")
    return found


class _Careful(io.BufferedReader):
    """A file that never hands out much at once: zipfile reads a table of contents as a whole, before anybody can look at its size."""

    def read(self, size: int | None = -1) -> bytes:
        wanted = size if size is not None and size >= 0 else os.fstat(self.fileno()).st_size - self.tell()
        if wanted > DIRECTORY:
            raise zipfile.BadZipFile("its table of contents is too large")
        return super().read(size)


def _from_zip(path: Path, found: Unpacked) -> None:
    if not path.is_file():
        raise zipfile.BadZipFile("it is no file")
    size = path.stat().st_size
    found.megabytes = size / 1e6
    if size > TOTAL:
        found.problems.append(f"It has {size / 1e6:,.0f} MB and is not read: a submission has at most {TOTAL / 1e6:.0f} MB.")
        return
    with _Careful(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len(entries) > MEMBERS:
            found.problems.append(f"It has {len(entries):,} entries and is not read: a submission has at most {MEMBERS:,}.")
        elif _overlap(entries, archive.start_dir):
            found.problems.append("It is not read, since its entries overlap, as in files made to fill a disk.")
        else:
            named = _without_wrapping(_harmless(entries, found))
            found.fill({name: partial(_read_entry, archive, entry) for name, entry in named.items()})
            if found.contents and ABOUT not in found.contents:
                found.problems.append(
                    f"{ABOUT} is missing: the zip was not made by the lab, or was taken apart, and may have been changed."
                )


def _overlap(entries: list[zipfile.ZipInfo], end: int) -> bool:
    """Whether entries share bytes, or lie in the table of contents: a small file can then unpack to a huge one (Fifield 2019)."""
    entries = sorted(entries, key=lambda entry: entry.header_offset)
    starts = [*(entry.header_offset for entry in entries), end]
    return any(
        entry.header_offset + zipfile.sizeFileHeader + entry.compress_size > after for entry, after in zip(entries, starts[1:], strict=True)
    )


def _harmless(entries: list[zipfile.ZipInfo], found: Unpacked) -> dict[str, zipfile.ZipInfo]:
    """Name -> entry, for files whose name, kind and packing are those of an honest zip."""
    refused, kept = defaultdict(list), []
    for entry in entries:
        if reason := _why_refused(entry):
            refused[reason].append(entry.orig_filename)
        elif not entry.is_dir() and not IGNORED.search(entry.filename):
            kept.append(entry)
    alike = Counter(_as_one_file(entry.filename) for entry in kept)
    exact = Counter(entry.filename for entry in kept)
    for name, count in exact.items():
        if count > 1:
            refused["there more than once"].append(name)
        elif alike[_as_one_file(name)] > 1:
            refused["there again under a name that differs only in capitals or accents"].append(name)
    found.refuse(refused)
    return {entry.filename: entry for entry in kept if alike[_as_one_file(entry.filename)] == 1}


def _why_refused(entry: zipfile.ZipInfo) -> str | None:
    """What an entry is that must not be read, as the end of a sentence; None for an ordinary file or folder."""
    name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
    parts = name.split("/")
    if "\\" in name:
        return "named with backslashes, as some programs for Windows do (the lab's own zip has none)"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts:
        return "named so that it leads out of the submission"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "named with characters that no name should hold"
    if any(DEVICE.match(part) for part in parts):
        return "named like a device of Windows"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return LINK if kind == stat.S_IFLNK else "no ordinary file"
    if entry.flag_bits & 0x1:
        return "locked with a password"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "packed by a method that the lab does not read"
    return "an archive inside the submission" if ARCHIVE.search(name) else None


def _as_one_file(name: str) -> str:
    """What names have in common that are one file on Windows or macOS."""
    return unicodedata.normalize("NFC", name).casefold()


def _without_wrapping(named: dict[str, zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The entries without the one folder around them all that zipping a folder adds."""
    tops = {name.partition("/")[0] if "/" in name else "" for name in named}
    if len(tops) != 1 or tops & {"", *_PLACES}:
        return named
    return {name.partition("/")[2]: entry for name, entry in named.items()}


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An entry's content. The size that it declares may be a lie, so what comes out is counted.

    Raises:
        _TooLarge: it is larger than the lab packs.
    """
    if entry.file_size > LARGEST:
        raise _TooLarge
    parts, size = [], 0
    with archive.open(entry) as file:
        while chunk := file.read(CHUNK):  # to the end, where zipfile compares the checksum
            size += len(chunk)
            if size > LARGEST:
                raise _TooLarge
            parts.append(chunk)
    return b"".join(parts)


_PLACES = ("", *METHODS, *FOLDERS, "notebooks")  # where the files of a submission or a run directory lie


def _from_folder(folder: Path, found: Unpacked) -> None:
    inside = _names(folder)
    if not any(kept_as(name) for name in inside):
        within = [path for path in sorted(folder.iterdir()) if path.is_dir() and not IGNORED.search(path.name)]
        if len(within) == 1:
            folder = within[0]
            inside = _names(folder)
    refused = defaultdict(list)
    for name in inside:
        if ARCHIVE.search(name):
            refused["an archive inside the submission"].append(name)
        elif kept_as(name) and not (folder / name).resolve().is_relative_to(folder.resolve()):
            refused[LINK].append(name)
    found.refuse(refused)
    left_out = {name for names in refused.values() for name in names}
    found.fill({name: partial(_read_file, folder / name) for name in inside if name not in left_out})
    found.megabytes = sum(map(len, found.contents.values())) / 1e6


def _names(folder: Path) -> list[str]:
    """The files of a folder in the places where those of a submission lie, the ones in `notebooks` before copies at the top."""
    paths: Iterable[Path] = (path for place in reversed(_PLACES) for path in sorted((folder / place).glob("*"))[:MEMBERS])
    return [path.relative_to(folder).as_posix() for path in paths if path.is_file() and not IGNORED.search(path.name)]


def _read_file(path: Path) -> bytes:
    if path.stat().st_size > LARGEST:
        raise _TooLarge
    return path.read_bytes()


def _said(name: str) -> str:
    return shown(in_words(name))


def _reason(error: Exception) -> str:
    return shown(getattr(error, "strerror", None) or str(error) or type(error).__name__)
