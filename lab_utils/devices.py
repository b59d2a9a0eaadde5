"""The machines that a plan speaks about, this one among them; asked without torch."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from lab_utils import environment

THIS_MACHINE = "this machine"
FIRST_WITH_KERNELS = (7, 0)  # compute capability that today's torch builds start at


@dataclass(frozen=True)
class Device:
    name: str
    memory_gb: float  # that CUDA, or the operating system, reports
    capability: tuple[int, int] | None = None  # None: a CPU
    note: str = ""


T4 = Device("T4 16 GB", 15.8, (7, 5))
P100 = Device("P100 16 GB", 17.1, (6, 0))
A100 = Device("A100 40 GB", 42.4, (8, 0))
H200 = Device("H200 141 GB", 150.0, (9, 0))
DEVICES = (T4, P100, A100, H200)


@cache
def this_machine() -> Device:
    """The GPU that the lab would use here, else the CPU with the machine's memory; asked without torch."""
    return _gpu() or Device(THIS_MACHINE, environment.memory_limit() / 1e9, note=f"CPU ({platform.machine()})")


def _gpu() -> Device | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        if visible in ("", "-1") or metadata.version("torch").endswith("+cpu"):
            return None
    except metadata.PackageNotFoundError:
        pass  # a machine that is only asked what would fit
    found = gpus()
    return found[int(visible) if visible.isdigit() and int(visible) < len(found) else 0] if found else None


def gpus() -> list[Device | None]:
    """Every GPU that the driver names, hidden ones too; None for one whose memory or capability it does not say."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [_device(row) for row in csv.reader(found.splitlines(), skipinitialspace=True)]


def _device(row: list[str]) -> Device | None:
    try:
        name, mebibytes, capability = row
        major, minor = map(int, capability.split("."))
        return Device(THIS_MACHINE, int(mebibytes) * 2**20 / 1e9, (major, minor), name)
    except ValueError:
        return None
