"""The record of a run: written at once when it starts, and replaced when something is known."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab_utils import checkpoints, environment, locks, mirror, processes, scrubbing
from lab_utils.config import METHODS, Settings, recorded
from lab_utils.errors import LabError
from lab_utils.fields import changed
from lab_utils.files import make_folder, write_json, write_text
from lab_utils.predictions import UNFINISHED, Prediction

SCHEMA = 1


@dataclass
class Run:
    """One method's folder under a run directory. A record says `stopped` from its first moment until the run has finished,
    so that a process that was killed leaves the truth behind. Of several processes only the main one writes."""

    folder: Path
    record: dict = field(repr=False)
    _lock: Any = field(default=None, repr=False)

    def add(self, **blocks) -> None:
        """Puts blocks (`data`, `model`, `training`, ...) into the record and writes it."""
        self.record |= scrubbing.without_secrets(blocks)
        if processes.is_main():
            write_json(self.folder / "run.json", self.record)

    def save_predictions(self, predictions: Sequence[Prediction]) -> None:
        lines = [json.dumps(row, ensure_ascii=False) for row in scrubbing.without_secrets([asdict(p) for p in predictions])]
        if processes.is_main():
            write_text(self.folder / "predictions.jsonl", "".join(line + "\n" for line in lines))

    @property
    def checkpoints(self) -> Path:
        """Where an interrupted training goes on from."""
        return self.folder / checkpoints.FOLDER

    @property
    def unfinished(self) -> Path:
        """Where interrupted summaries go on from."""
        return self.folder / UNFINISHED

    def finish(self) -> None:
        """Marks the record `finished`, and removes what was kept to go on from."""
        self.add(status="finished")
        if processes.is_main():
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            for path in self.folder.glob(f"{self.unfinished.stem}*"):
                path.unlink(missing_ok=True)
            mirror.finished(self.folder, environment.say)
        self._release()

    def hold(self) -> None:
        """Keeps other processes from writing there, until the run ends.

        Raises:
            locks.Busy: another one is writing there.
        """
        if processes.is_main():
            self._lock = locks.hold(self.folder).lock

    def _release(self) -> None:
        if self._lock:
            self._lock.release(force=True)

    @contextmanager
    def watched(self):
        """Marks the record `stopped` at Ctrl-C and `failed`, with the reason, at any other error; the error goes on."""
        self.hold()
        with processes.marking(self.mark):
            try:
                yield self
            except KeyboardInterrupt:
                self.mark("stopped")
                raise
            except Exception as error:
                self.mark("failed", f"{type(error).__name__}: {error}")
                raise

    def mark(self, status: str, reason: str | None = None) -> None:
        """Writes how an unfinished run ended, and lets others write there."""
        self.add(status=status, **({"error": scrubbing.text(reason)} if reason else {}))
        self._release()

    @property
    def figures(self) -> Path:
        return make_folder(self.folder / "figures")


def start(run_dir: str | Path, settings: Settings, assignment: str | None = None, student: str | None = None) -> Run:
    """A new record for this method, replacing an older one, with what is known before any work.

    What an interrupted run kept to go on from stays. No other process may write there until the run ends.

    Args:
        assignment, student: whose work this is, kept as given.

    Raises:
        locks.Busy: another process writes there.
        LabError: the folder, the assignment or the student is a token.
    """
    scrubbing.refuse({"run_dir": str(run_dir), "assignment": assignment, "student": student})
    folder = Path(run_dir) / settings.method
    run = Run(folder, {})
    run.hold()
    if processes.is_main():
        mirror.fetch(folder)
        make_folder(folder)
    recipe = settings.recipe
    precision = environment.precision(recipe.model.family, recipe.model.precision)
    machine = environment.machine()
    now = datetime.now(UTC)
    config = settings.model_dump()
    config["recipe"]["notes"] = recipe.all_notes
    for section in ("model", "data"):  # a folder's name is enough; its place on this machine is nobody's business
        source = config["recipe"][section]["source"]
        config["recipe"][section]["source"] = Path(source).name if Path(source).exists() or Path(source).is_absolute() else source
    run.add(
        schema=SCHEMA,
        status="stopped",
        method=settings.method,
        recipe=recipe.name,
        assignment=assignment,
        student=student,
        seed=settings.seed,
        date=now.date().isoformat(),
        started=now.isoformat(timespec="seconds"),
        config=config,
        environment={
            "python": platform.python_version(),
            "platform": f"{machine.platform}, {platform.system()} {platform.machine()}",
            "packages": environment.versions(),
            "device": machine.hardware,
            **({"processes": processes.count()} if processes.count() > 1 else {}),
            "precision": precision.name,
            "precision_reason": precision.reason,
            "commit": _commit(),
        },
    )
    if processes.is_main():  # after the record, which called them finished
        for stale in ("predictions.jsonl", "log.csv"):
            (folder / stale).unlink(missing_ok=True)
    return run


@dataclass(frozen=True)
class Finished:
    """A finished run read back from its folder."""

    method: str
    record: dict
    predictions: list[Prediction]
    folder: Path

    @property
    def base_is_local(self) -> bool:
        """Whether the base lay on the machine of the run. A record does not keep where, and on the hub its name may be somebody else's."""
        return self.record["model"]["source"] in ("local folder", "local file")

    def settings(self, model_dir: str | None = None) -> Settings:
        """The run's settings, with the base to load now.

        Args:
            model_dir: the base's folder, where it was a local one, or another to take in its place.

        Raises:
            LabError: the base was a local one, and its place is not given; or the record is of another version.
        """
        settings = recorded(self.record["config"])
        if model_dir is None and self.base_is_local:
            kind, kept = self.record["model"]["source"], settings.recipe.model.source
            raise LabError(f"This run's base was a {kind}, '{kept}', whose place the record does not keep: give it with --model-dir.")
        model = settings.recipe.model.model_dump() | {"source": model_dir or settings.recipe.model.source}
        return changed(settings, recipe=settings.recipe.model_dump() | {"model": model})


def read(run_dir: str | Path, method: str) -> Finished:
    """A finished run.

    Raises:
        LabError: there is none, it did not finish, or its files cannot be read.
    """
    folder = Path(run_dir) / method
    status = status_of(run_dir, method)
    if status != "finished":
        what = "has no record" if status is None else f"is {status}, not finished"
        raise LabError(f"Method {method} in '{run_dir}' {what}: run its notebook first.")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    try:
        lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").split("\n")
        predictions = [Prediction.of(row) for row in map(json.loads, filter(None, lines))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LabError(f"predictions.jsonl of {method} in '{run_dir}' cannot be read ({error}): run the method again.") from error
    return Finished(method, record, predictions, folder)


def read_all(run_dir: str | Path) -> list[Finished]:
    """All finished methods of a run directory, in the course's order."""
    return [read(run_dir, method) for method in METHODS if status_of(run_dir, method) == "finished"]


def status_of(run_dir: str | Path, method: str) -> str | None:
    """`finished`, `failed` or `stopped`; None where there is no readable record."""
    mirror.fetch(Path(run_dir) / method)
    try:
        return json.loads((Path(run_dir) / method / "run.json").read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def unlike(finished: Sequence[Finished]) -> list[str]:
    """Why these runs must not be put side by side: one sentence per difference in base, test set, prompt or decoding."""
    what = {
        "base model": lambda r: r["model"]["fingerprint"],
        "test set": lambda r: (r["data"]["fingerprint"], r["data"]["test"]),
        "prompt": lambda r: r["config"]["recipe"]["prompt"],
        "length limits": lambda r: r["config"]["recipe"]["lengths"]["document_tokens"],
        "decoding": lambda r: r["config"]["recipe"]["generation"]["max_new_tokens"],
    }
    reasons = []
    for name, read_value in what.items():
        values = {run.method: read_value(run.record) for run in finished}
        first = next(iter(values.values()), None)
        others = [method for method, value in values.items() if value != first]
        if others:
            reasons.append(f"{', '.join(others)} used another {name} than {finished[0].method}")
    return reasons


def _commit() -> str | None:
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("-changed" if dirty.stdout.strip() else "")
