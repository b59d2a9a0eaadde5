"""The memory that a process may take: the machine's own, and what containers, batch systems and shells allow of it.

In Docker, Slurm or a hosted notebook the operating system names the memory of the whole machine, and ends a process that takes more than
its share.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
# Names in version 1 and 2 of Linux's control groups: the limit, what is taken, and the part of it that the system takes back when needed.
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


@dataclass(frozen=True)
class Limit:
    """One limit, in bytes."""

    whose: str  # "machine", "container or job" or "shell (ulimit)"
    size: int
    free: int  # of it


def of_memory() -> list[Limit]:
    """Every limit that holds for this process; the machine's own memory first."""
    import psutil

    memory = psutil.virtual_memory()
    return [Limit("machine", memory.total, memory.available), *_of_control_groups(), *_of_the_shell()]


def _of_control_groups() -> list[Limit]:
    """The limits of this process's control group and of those above it. Off Linux, and where nothing is limited, there are none."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    groups = {kinds: path for _, kinds, path in (line.split(":", 2) for line in lines if line.count(":") > 1)}
    first = next((kinds for kinds in groups if "memory" in kinds.split(",")), None)
    top, names = (CONTROL_GROUPS / "memory", VERSION_1) if first else (CONTROL_GROUPS, VERSION_2)
    own = top.joinpath(*(part for part in Path(groups.get(first or "", "/")).parts if part not in ("/", "\\")))
    folders = [own, *own.parents]
    # Inside a container the path may be the host's, which is not there: then the container's own limit stands at the top.
    return [limit for folder in folders[: folders.index(top) + 1] if (limit := _limit(folder, *names))]


def _limit(folder: Path, size: str, taken: str, reclaimable: str) -> Limit | None:
    limit = _number(folder / size)
    if limit is None:
        return None
    used = (_number(folder / taken) or 0) - (_number(folder / "memory.stat", f"{reclaimable} ") or 0)
    return Limit("container or job", limit, max(0, limit - max(0, used)))


def _number(path: Path, word: str = "") -> int | None:
    """The number that stands behind the word in a file; None where there is none, as in a group without limit ("max")."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return next((int(line.removeprefix(word)) for line in lines if line.startswith(word)), None)
    except (OSError, ValueError):
        return None


def _of_the_shell() -> list[Limit]:
    """The limits that `ulimit -v` and `ulimit -d` set. Only Linux holds a process to them."""
    if sys.platform != "linux":
        return []
    import resource

    import psutil

    held, found = psutil.Process().memory_info(), []
    for kind, taken in ((resource.RLIMIT_AS, held.vms), (resource.RLIMIT_DATA, held.data)):
        size, _ = resource.getrlimit(kind)
        if size != resource.RLIM_INFINITY:
            found.append(Limit("shell (ulimit)", size, max(0, size - taken)))
    return found
