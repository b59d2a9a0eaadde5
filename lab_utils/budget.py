"""What a whole assignment will take, before anything runs: minutes, memory and disk, notebook by notebook.

Everything follows from configurations and from what the lab has measured: no weights, no torch, no network.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab_utils import architectures, cache, devices, pace
from lab_utils import plan as planning
from lab_utils.clock import Clock, Task, holds, task_of
from lab_utils.course import Notebook
from lab_utils.devices import Device
from lab_utils.errors import LabError
from lab_utils.needs import PROCESS_GB, Needs

Planned = Sequence[tuple[Notebook, Mapping[str, Any]]]

NOTEBOOK_GB = 0.002  # an executed notebook with figures, predictions and its part of the report; assumed
DATA_GB = {"abisee/cnn_dailymail": (0.8, 2.2)}  # downloaded, and kept with what is unpacked of it; other known sets are below 0.05


@dataclass(frozen=True)
class Row:
    """What one notebook will take; None: not known, and `note` says why where it is the model."""

    notebook: str
    method: str | None
    minutes: float | None
    memory_gb: float | None  # at its peak, on the budget's device
    disk_gb: float | None  # of the checkpoint that it writes
    steps: int | None  # of the optimizer; None, too, where nothing is trained
    fits: dict[str, bool]  # by device, the budget's among them; in smaller batches where it needs them; empty: not known
    note: str = ""


@dataclass(frozen=True)
class Kept:
    """What is downloaded or unpacked once and stays in a cache."""

    source: str
    download_gb: float
    disk_gb: float
    place: Path  # the cache
    pattern: str  # of what lies there afterwards

    @property
    def is_there(self) -> bool:
        return any(self.place.glob(self.pattern))

    def __str__(self):
        if self.download_gb:
            return f"{self.source} is downloaded once: {_size(self.download_gb)}."
        return f"{self.source} is unpacked once: {_size(self.disk_gb)}."


@dataclass(frozen=True)
class Budget:
    """What all notebooks will take; None: of one of them it is not known."""

    device: str
    rows: list[Row]
    minutes: float | None
    memory_gb: float | None  # of the most demanding notebook
    disk_gb: float  # checkpoints that are known, notebooks and report, and what is kept
    download_gb: float
    fits: dict[str, bool]  # by the names of `devices.DEVICES`; empty where it is not known of a notebook
    notes: list[str]  # sentences for whoever runs the notebooks, on whatever machine
    kept: list[Kept]

    @property
    def run_gb(self) -> float:
        """What the run directory will hold."""
        return self.disk_gb - sum(one.disk_gb for one in self.kept)


def estimate(plan: Planned, rates: pace.Rates | None = None, device: Device | None = None) -> Budget:
    """What these notebooks will take with these parameters.

    Args:
        plan: notebooks, each with every parameter of its parameters cell, as `runner.planned` returns them.
        rates: what the device does at most (`pace.measure`). Without them, minutes are those of the bench's machine; where the lab has
            measured the recipe's whole course, a share or a multiple of that.
        device: whose memory, and with `rates` whose minutes, are meant; by default this machine's.

    Raises:
        LabError: values that do not fit the recipe, or local data that cannot be read.
    """
    device = device or devices.this_machine()
    tasks, clock = [task_of(notebook, values) for notebook, values in plan], Clock(device, rates)
    rows = [_row(task, clock, device) for task in tasks]
    kept = {one.source: one for task in tasks for one in _kept(task)}
    known = all(row.fits for row in rows)
    return Budget(
        device=device.name,
        rows=rows,
        minutes=_of_known(sum, [row.minutes for row in rows]),
        memory_gb=_of_known(max, [row.memory_gb for row in rows]),
        disk_gb=sum([row.disk_gb or 0.0 for row in rows] + [one.disk_gb for one in kept.values()]) + NOTEBOOK_GB * len(rows),
        download_gb=sum(one.download_gb for one in kept.values()),
        fits={one.name: all(row.fits[one.name] for row in rows) for one in devices.DEVICES} if known else {},
        notes=[*clock.notes(tasks), *map(str, kept.values())],
        kept=list(kept.values()),
    )


def _of_known(total: Callable, values: Sequence[float | None]) -> float | None:
    return None if None in values else total(values)


def _row(task: Task, clock: Clock, device: Device) -> Row:
    notebook, settings, minutes = task.notebook, task.settings, clock.minutes(task)
    everywhere = [*(one for one in devices.DEVICES if one.name != device.name), device]
    if notebook.method is None:
        return Row(notebook.name, None, minutes, PROCESS_GB, 0.0, None, {one.name: True for one in everywhere})
    steps = clock.steps(settings)
    try:
        shape = architectures.shape_of(settings.recipe.model.source)
    except LabError as error:
        return Row(notebook.name, notebook.method, None, None, None, steps, {}, str(error).rstrip("."))
    made = planning.make(settings, device)
    fits = {one.name: holds(Needs(settings, shape, one, made.fits[one.name].precision)) for one in everywhere}
    why, note = made.fits[device.name].note.removeprefix(device.note).lstrip("; "), ""
    if not fits[device.name]:
        note = f"{made.peak_gb:.1f} GB do not fit here ({why}); leave it out with --only, or choose a smaller model or another machine"
    elif not made.fits[device.name].fits:
        note = f"it will take smaller batches by itself here ({why})"
    stored = made.model_mb or (made.adapter_mb or 0.0) * (2 if getattr(settings.training, "pissa", False) else 1)
    return Row(notebook.name, notebook.method, minutes, made.peak_gb, stored / 1e3, steps, fits, note)


def _kept(task: Task) -> list[Kept]:
    """What a notebook takes from the hub or from an installed package."""
    from huggingface_hub.constants import HF_HUB_CACHE

    hub, found = Path(HF_HUB_CACHE), []
    model, source = task.settings.recipe.model, task.settings.recipe.data.source
    if source in DATA_GB:
        found.append(Kept(source, *DATA_GB[source], hub, f"datasets--{source.replace('/', '--')}/snapshots/*"))
    scheme, _, package = model.source.partition(":")
    if task.notebook.method is None or scheme == "random" or Path(model.source).exists():
        return found
    try:
        gigabytes = architectures.shape_of(model.source).parameters / 1e9
    except LabError:  # its row says so
        return found
    if scheme == "package":
        return [*found, Kept(model.source, 0.0, 4 * gigabytes, cache.folder(), f"{package}-*")]
    size = (4 if model.family == "seq2seq" else 2) * gigabytes  # T5 models are published in float32, the known decoders in 16 bits
    return [*found, Kept(model.source, size, size, hub, f"models--{model.source.replace('/', '--')}/snapshots/*")]


# --- disk -------------------------------------------------------------------------------------------------------------


def check_disk(budget: Budget, folder: str | Path) -> None:
    """Makes sure that a run directory, and the caches, have room for what is not there yet.

    Raises:
        LabError: a disk has less free than will be written to it.
    """
    for place, needed, free in _disks(budget, folder):
        if needed > free:
            cure = "free some space, or choose another folder with --out (run directory), LAB_CACHE or HF_HOME (caches)"
            raise LabError(f"About {_size(needed)} will be written to the disk of {place}, and {_size(free)} are free there: {cure}.")


def _disks(budget: Budget, folder: str | Path) -> list[tuple[str, float, float]]:
    """Each disk that will be written to: what of the run lies on it, GB to come, GB free."""
    writes = [("the run directory", Path(folder), budget.run_gb)]
    writes += [("the caches", one.place, one.disk_gb) for one in budget.kept if not one.is_there]
    disks: dict[int, tuple[str, float, float]] = {}
    for name, place, gigabytes in writes:
        there = next(one for one in (place.absolute(), *place.absolute().parents) if one.exists())
        disk = there.stat().st_dev
        first, already, free = disks.get(disk, (name, 0.0, shutil.disk_usage(there).free / 1e9))
        disks[disk] = (first, already + gigabytes, free)
    return list(disks.values())


# --- words ------------------------------------------------------------------------------------------------------------


def describe(budget: Budget, folder: str | Path = ".") -> str:
    """The budget as a table with notes, in lines of at most 100 characters, and the free space where `folder` will be written."""
    lines = [f"{'notebook':<24}{'method':<12}{'minutes':>9}{'memory GB':>11}{'disk GB':>9}{'steps':>8}"]
    lines += [_line(row.notebook, row.method or "-", row.minutes, row.memory_gb, row.disk_gb, row.steps) for row in budget.rows]
    lines += [_line("together", "", budget.minutes, budget.memory_gb, budget.disk_gb, None), ""]
    sentences = [f"{row.notebook}: {row.note}." for row in budget.rows if row.note]
    sentences += [*budget.notes, f"Memory is that of {budget.device}; of all notebooks, the largest."]
    if budget.minutes is None or budget.memory_gb is None:
        sentences.append("What is not known beforehand is marked '?'.")
    for word, answer in (("It fits", True), ("It does not fit", False)):
        if names := [name for name, fits in budget.fits.items() if fits is answer]:
            sentences.append(f"{word} on: {', '.join(names)}.")
    disks = _disks(budget, folder)
    sentences += [f"The disk of {place}: about {_size(needed)} to come, {_size(free)} free." for place, needed, free in disks]
    return "\n".join(lines + [line for sentence in sentences for line in textwrap.wrap(sentence, 100, subsequent_indent="  ")])


def _line(name: str, method: str, minutes: float | None, memory: float | None, disk: float | None, steps: int | None) -> str:
    def number(value: float | None, digits: int = 1) -> str:
        return "?" if value is None else f"{value:,.{digits}f}"

    counted = "" if steps is None else f"{steps:,}"
    return f"{name:<24}{method:<12}{number(minutes):>9}{number(memory):>11}{number(disk, 2):>9}{counted:>8}".rstrip()


def _size(gigabytes: float) -> str:
    return f"{gigabytes:,.1f} GB" if gigabytes >= 0.95 else f"{1000 * gigabytes:,.0f} MB"


def as_json(budget: Budget) -> dict[str, Any]:
    """The budget as plain values, minutes and GB rounded; without the places of caches, which are this machine's."""
    values = asdict(budget)
    values["kept"] = {one.source: round(one.disk_gb, 3) for one in budget.kept}
    for part in (values, *values["rows"]):
        part |= {name: round(value, 3) for name, value in part.items() if isinstance(value, float)}
    return values
