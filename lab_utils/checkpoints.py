"""Where a training stands, kept on disk so that one that was killed goes on from there to the same end."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab_utils import chores, environment, files, mirror, processes, scrubbing
from lab_utils.chores import Chore
from lab_utils.data import Example
from lab_utils.errors import LabError
from lab_utils.integrity import file_hash
from lab_utils.models import Base

FOLDER = "checkpoints"  # in a method's folder
PROGRESS, COMPLETE = "progress.json", "complete.json"  # what the lab knows of it; the hashes of all files, written last


@dataclass
class Checkpoint:
    """A complete one: what transformers' Trainer wrote, and what the lab knows beside it."""

    folder: Path
    step: int
    progress: dict[str, Any] = field(repr=False)


@dataclass
class Keeper:
    """Keeps the newest checkpoint of one training. It is written beside its name, and the older one goes when it is complete.

    A checkpoint belongs to a training whose `key` is the same, since only then the end is the same.
    """

    folder: Path
    key: str
    say: Callable[[str], None] = field(repr=False)

    def __post_init__(self):
        self._chore = Chore()

    @property
    def seconds(self) -> float:
        """That writing has taken, the one at hand included."""
        return self._chore.seconds

    @property
    def _scratch(self) -> Path:
        return self.folder / ".unfinished"

    @contextmanager
    def room(self) -> Iterator[str]:
        """A folder for the Trainer to write into, which is gone afterwards."""
        try:
            yield str(self._scratch)
        finally:
            self._clear()

    def latest(self) -> Checkpoint | None:
        """The one to go on from, the same in all processes. What is damaged, or is of another training, is removed, and it is said."""
        found = self._latest() if processes.is_main() else None
        step = processes.gather(found and found.step)[0]
        return found if processes.is_main() or step is None else self._read(self._named(step))

    def is_due(self, left: float) -> bool:
        """Whether to write one now, in all processes alike.

        Args:
            left: seconds until the training is done, when one is written anyway.
        """
        return processes.gather(self._chore.due and left > chores.EVERY / 2)[0]

    @contextmanager
    def writing(self, step: int, progress: Callable[[], dict]) -> Iterator[None]:
        """Around the Trainer's writing. If it cannot be written, that is said, and the training goes on without.

        Args:
            progress: gives what is kept beside it; called in all processes when the Trainer has written.
        """
        failures: list[str] = []
        with self._chore.doing():
            with _noted(failures):
                yield
            failures = sum(processes.gather(failures), [])  # all come here, since those that wrote would wait for one that could not
            if not failures:
                known = progress()
                with _noted(failures):
                    self._complete(step, known)
            if failures:
                self._clear()
                self.say(f"step {step} could not be kept ({failures[0]}): training goes on, but would begin again if it were interrupted.")

    def _complete(self, step: int, progress: dict) -> None:
        """Gives the checkpoint its name and removes the others."""
        if not processes.is_main():
            return
        written = self._scratch / f"checkpoint-{step}"  # the Trainer's name for it
        files.write_json(written / PROGRESS, progress)
        files.write_json(written / COMPLETE, {"key": self.key, "hashes": {path.name: file_hash(path) for path in written.iterdir()}})
        target = self._named(step)
        shutil.rmtree(target, ignore_errors=True)
        written.rename(target)
        for older in self._all():
            if older != target:
                shutil.rmtree(older, ignore_errors=True)
        mirror.on_the_way(self.folder.parent, self.folder.name, self.say)

    def _clear(self) -> None:
        if processes.is_main():
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _latest(self) -> Checkpoint | None:
        self._clear()
        for folder in self._all():
            found = self._read(folder)
            if isinstance(found, Checkpoint):
                return found
            self.say(f"{folder.name} {found}: it is removed.")
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def _read(self, folder: Path) -> Checkpoint | str:
        """A checkpoint, or why it cannot be used."""
        try:
            complete = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
            if complete["key"] != self.key:
                return "is of a training with other settings, data or packages"
            for name, digest in complete["hashes"].items():
                if not (folder / name).is_file() or file_hash(folder / name) != digest:
                    return f"is damaged ({name})"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return f"is damaged ({COMPLETE})"
        return Checkpoint(folder, int(folder.name[5:]), json.loads((folder / PROGRESS).read_text(encoding="utf-8")))

    def _named(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def _all(self) -> list[Path]:
        """The newest first, by their steps: a clock may have been moved."""
        return sorted((path for path in self.folder.glob("step-*") if path.name[5:].isdecimal()), reverse=True)


@contextmanager
def _noted(failures: list[str]) -> Iterator[None]:
    """Adds to the failures why something could not be written, in place of raising it."""
    try:
        with files.system_errors():
            yield
    except (OSError, LabError) as error:
        failures.append(getattr(error, "strerror", None) or scrubbing.reason(error))


def key(base: Base, examples: list[Example], validation: list[Example], **more: Any) -> str:
    """A hash of all that decides how a training ends: settings, base, examples, package versions, number of processes.

    The size of a micro-batch is left out: after a lack of memory the same training goes on with a smaller one.
    """
    settings = base.settings.model_dump()
    settings["recipe"].pop("generation"), settings["recipe"].pop("publishing")
    settings["recipe"][base.settings.method].pop("micro_batch")
    rows = [(example.id, example.document, example.summary) for example in (*examples, *validation)]
    decides = [settings, base.checkpoint, base.precision.name, rows, environment.versions(), processes.count(), more]
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:16]
