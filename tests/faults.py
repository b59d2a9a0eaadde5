"""A disk that fills up: from a chosen writing on, whatever is written under some folders fails as it does on a full disk.

`disk` counts the writings: opening or making a file or folder, each block that leaves Python's buffers, renaming, and what compiled
libraries write past Python. The first that fails leaves half of its bytes. Removing things always works, as on a real disk.
"""

import builtins
import contextlib
import errno
import io
import os
import re
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from safetensors import SafetensorError

from lab_utils.errors import LabError

TEMPORARY = re.compile(r"^\.(.+)\.[\w-]+\.\d+\.[0-9a-f]{8}$")  # what lab_utils.files gives to what is being written
LEFT = ("tmp", ".hub-", ".unfinished")  # how other names of what is being written begin
LOCK = re.compile(r"^\..+\.lock$")  # an empty file, which stays
RANDOM = re.compile(r"(?<=^tmp)\w{8}$|(?<=^\.hub-)\w{8}$")
_open, _os_open = io.open, os.open


@dataclass
class Disk:
    """What was written, as `kind name`, and how many writings there is room for (None: for all)."""

    folders: tuple[str, ...]
    room: int | None = None
    done: list[str] = field(default_factory=list)
    failed: str | None = None

    def watches(self, path) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        return os.path.abspath(os.fspath(path)).startswith(self.folders)

    def take(self, kind: str, path) -> None:
        """Notes a writing; OSError where there is no room for it."""
        name = os.path.basename(os.fspath(path))
        name = TEMPORARY.sub(r"\1", RANDOM.sub("", name))
        self.done.append(f"{kind} {name}")
        if self.room is not None and len(self.done) > self.room:
            self.failed = self.failed or self.done[-1]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


class _File(io.FileIO):
    """A file on that disk, below Python's buffers."""

    def __init__(self, path, mode, disk):
        self.path, self.disk, self.cut = path, disk, False
        super().__init__(path, mode)

    def write(self, block):
        try:
            if self.cut:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(self.path))
            self.disk.take("write", self.path)
        except OSError:
            half = len(block) // 2
            if self.cut or not half:
                raise
            self.cut = True
            return super().write(memoryview(block)[:half])
        return super().write(block)


@contextlib.contextmanager
def disk(*folders: Path, room: int | None = None):
    """The folders on a disk with room for so many writings; yields it, and `room = None` frees it."""
    there = Disk(tuple(os.path.abspath(folder) for folder in folders), room)

    def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        if not set(mode) & set("wax+") or opener or not there.watches(file):
            return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        there.take("open", file)
        raw = _File(file, mode.replace("b", "").replace("t", ""), there)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)

    def os_opened(path, flags, *arguments, **options):
        if flags & os.O_CREAT and there.watches(path) and not os.path.exists(path):
            there.take("open", path)
        return _os_open(path, flags, *arguments, **options)

    def noted(kind, function, place):
        def call(*arguments, **options):
            path = arguments[place]
            if there.watches(path) and not (kind == "folder" and os.path.isdir(path)):
                there.take(kind, path)
            return function(*arguments, **options)

        return call

    with contextlib.ExitStack() as stack:
        for module, name, stand_in in (
            (io, "open", opened),
            (builtins, "open", opened),
            (os, "open", os_opened),
            (os, "mkdir", noted("folder", os.mkdir, 0)),
            (os, "rename", noted("rename", os.rename, 1)),
            (os, "replace", noted("rename", os.replace, 1)),
            (os, "symlink", noted("link", os.symlink, 1)),
            (shutil, "_USE_CP_SENDFILE", False),  # else copies would go past Python
            *_compiled(there),
        ):
            stack.enter_context(mock.patch.object(module, name, stand_in))
        yield there


def _compiled(there: Disk):
    """Stand-ins for what writes past Python, with what each says on a full disk (tried with a limit on the size of files)."""
    import safetensors.torch
    import torch
    import transformers
    from pyarrow import parquet

    def full(function, place, error):
        def call(*arguments, **options):
            path = Path(options["save_directory"], "tokenizer.json") if place is None else arguments[place]
            if there.watches(path):
                try:
                    there.take("compiled", path)
                except OSError:
                    with _open(path, "wb") as file:
                        file.write(b"half")
                    raise error() from None
            return function(*arguments, **options)

        return call

    def of_safetensors():
        return SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    tokenizer = transformers.PreTrainedTokenizerFast
    yield safetensors.torch, "serialize_file", full(safetensors.torch.serialize_file, 1, of_safetensors)
    yield torch, "save", full(torch.save, 1, lambda: RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"))
    yield (
        parquet,
        "write_table",
        full(
            parquet.write_table, 1, lambda: OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device")
        ),
    )
    yield tokenizer, "_save_pretrained", full(tokenizer._save_pretrained, None, lambda: Exception("No space left on device (os error 28)"))


def contents(folder: Path, without: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Every file under a folder but locks, by its name there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not LOCK.match(path.name) and path.name not in without
    }


def sentence(caught) -> str:
    """What is said, which must be one sentence or two that end in what to do."""
    text = str(caught.value)
    assert "\n" not in text and text.endswith((".", ")")) and ": " in text, text
    return text


def temporary(folder: Path) -> list[str]:
    """What was being written and was left."""
    return [path.name for path in folder.rglob("*") if TEMPORARY.match(path.name) or path.name.startswith(LEFT)]


def chosen(done: list[str], kinds: Collection[str] = ()) -> list[int]:
    """The first and the last writing of each kind and name: how many came before it. `kinds`: these only."""
    wanted = [what for what in dict.fromkeys(done) if not kinds or what.split()[0] in kinds]
    return sorted({done.index(what) for what in wanted} | {len(done) - 1 - done[::-1].index(what) for what in wanted})


@dataclass
class Command:
    """Something that writes, to be tried on a disk that fills up.

    Attributes:
        prepare: puts into a folder what was there before.
        run: does it, in that folder.
        result: what of the folder must be the same in the end; by default all files.
        wrong: what is wrong with the folder after a failure, in words; None where all is well.
        whole: whether each file holds what was there before or what will be there in the end, at every moment.
        kinds: of writings to try; by default all.
    """

    prepare: Callable[[Path], object]
    run: Callable[[Path], object]
    result: Callable[[Path], object] = contents
    wrong: Callable[[Path], str | None] = lambda folder: None
    whole: bool = True
    kinds: Collection[str] = ()


def try_everywhere(command: Command, folder: Path, beside: tuple[Path, ...] = ()) -> list[str]:
    """Runs the command once on an endless disk, and then with the first and the last writing of each kind as the one at which it is full.

    Each time: one sentence, nothing half-written left, older files as they were or as they should become, and the right result when there
    is space again. Returns the writings.

    Args:
        beside: folders on the same disk that are emptied in between.
    """

    def fresh(name) -> Path:
        here = folder / name
        here.mkdir(parents=True)
        command.prepare(here)
        return here

    first = fresh("endless")
    before = contents(first)
    with disk(first, *beside) as counted:
        command.run(first)
    wanted, after = command.result(first), contents(first)
    problems = []
    for room in chosen(counted.done, command.kinds):
        here = fresh(f"room-{room}")
        with disk(here, *beside, room=room) as full:
            found = list(_problems_of_a_failure(command, here))
        found += _problems_of_a_folder(command, here, before, after)
        found += [f"left {name} in the temporary folder" for place in beside for name in os.listdir(place)]
        try:
            command.run(here)
            found += [] if command.result(here) == wanted else ["when there is space again the result is another one"]
        except Exception as error:
            found.append(f"when there is space again: {type(error).__name__}: {error}")
        problems += [(full.failed, what) for what in found]
        shutil.rmtree(here)
    assert not problems, "\n".join(f"{at}: {what}" for at, what in problems)
    return counted.done


def _problems_of_a_failure(command: Command, here: Path):
    try:
        command.run(here)
        yield "no failure is told"
    except LabError as error:
        text = str(error)
        if "\n" in text or not text.endswith(".") or not re.search(r"No space left|could not write all", text):
            yield f"no sentence with the reason: {text}"
    except BaseException as error:
        yield f"{type(error).__name__} in place of a sentence: {error}"


def _problems_of_a_folder(command: Command, here: Path, before: dict, after: dict):
    yield from (f"left {name}" for name in temporary(here))
    if command.whole:
        found = contents(here)
        half = [name for name, content in found.items() if content not in (before.get(name), after.get(name))]
        yield from (f"{name} is neither what it was nor what it should become" for name in half)
        yield from (f"{name} is gone" for name in before if name in after and name not in found)
    if wrong := command.wrong(here):
        yield wrong
