"""Who is running a point: a claim that only one process can hold."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

from lab_utils import files

CLAIMS = ".claims"


@contextlib.contextmanager
def claimed(out: Path, key: str) -> Iterator[str | None]:
    """Yields who else is running a point, or None where it belongs to this process until the end of the block.

    A claim is a file that only one process can create, on a shared file system, too. One that a dead process of this machine left behind
    stays, and the next number outdoes it: of two processes that find it at the same time only one can create that.
    """
    folder = files.make_folder(out / CLAIMS)
    last = max((int(path.suffix[1:]) for path in folder.glob(f"{key}.*") if path.suffix[1:].isdecimal()), default=-1)
    if last >= 0 and (holder := _holder(folder / f"{key}.{last}")):
        yield holder
        return
    own = folder / f"{key}.{last + 1}"
    try:
        with own.open("x", encoding="utf-8") as file:
            json.dump(_this_process(), file)
    except FileExistsError:
        yield _holder(own) or "another process"
        return
    try:
        yield None
    finally:
        own.unlink(missing_ok=True)


def _this_process() -> dict:
    import psutil

    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}


def _holder(claim: Path) -> str | None:
    """Whose claim this is; None where that process was one of this machine and has ended."""
    import psutil

    try:
        said = json.loads(claim.read_text(encoding="utf-8"))
        host, pid, started = str(said["host"]), int(said["pid"]), float(said["started"])
    except (OSError, ValueError, KeyError, TypeError):  # just created, or just given back
        return f"another process (if there is none, delete {claim})"
    if host == socket.gethostname():
        try:
            alive = abs(psutil.Process(pid).create_time() - started) < 2  # seconds; else its number was given to another process
        except (psutil.NoSuchProcess, ValueError, OverflowError):
            alive = False
        except psutil.AccessDenied:
            alive = True
        return f"process {pid}" if alive else None
    return f"process {pid} on {host} (if it has ended, delete {claim})"
