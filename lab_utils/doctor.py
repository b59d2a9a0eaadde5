"""What this machine is, what works on it, and which recipe fits."""

from __future__ import annotations

import importlib
import shutil
import sys

from lab_utils import environment, models
from lab_utils.errors import LabError


def report() -> bool:
    """Prints one line per check, the cure beside what is broken; True when all is well."""
    problems = 0
    for name, check in (("Python", _python), ("packages", _packages), ("machine", _machine), ("model", _model), ("disk", _disk)):
        try:
            print(f"[ok]   {name}: {check()}")
        except LabError as error:
            problems += 1
            print(f"[FAIL] {name}: {error}")
    if not problems:
        precision = environment.precision()
        print(f"Use recipe smollm2-everyday, all methods, {precision.name}: {precision.reason}.")
    return not problems


def _python() -> str:
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        raise LabError(f"{sys.version.split()[0]} is not supported; install Python 3.11, 3.12 or 3.13.")
    return sys.version.split()[0]


def _packages() -> str:
    environment.quiet()
    broken = []
    for name in ("torch", "transformers", "peft", "bitsandbytes", "datasets", "rouge_score"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            broken.append(f"{name} ({error})")
    if broken:
        raise LabError(f"cannot import {', '.join(broken)}; run `make install`.")
    return ", ".join(f"{k} {v}" for k, v in environment.versions().items())


def _machine() -> str:
    machine = environment.machine()
    if machine.device == "cpu" and machine.memory_gb < 6:
        raise LabError(f"{machine.memory_gb:.0f} GB of memory; full fine-tuning needs about 6: run `lab run --only 01,03,05`.")
    return str(machine)


def _model() -> str:
    from lab_utils import config

    return (
        f"{config.load_recipe('smollm2-everyday').model.label} in {models.checkpoint_folder(config.load_recipe('smollm2-everyday').model)}"
    )


def _disk() -> str:
    free = shutil.disk_usage(".").free / 1e9
    if free < 2:
        raise LabError(f"{free:.1f} GB free here; a whole run needs 2 GB: free some space.")
    return f"{free:.0f} GB free"
