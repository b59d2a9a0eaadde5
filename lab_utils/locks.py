"""One at a time: a lock that ends with the process that holds it, however it ends."""

from __future__ import annotations

from pathlib import Path

from lab_utils import files
from lab_utils.errors import LabError

PATIENCE = 3.0  # seconds: a kernel whose parent was killed needs one or two to notice


class Busy(LabError):
    """Another process is writing there."""


def hold(folder: Path, patience: float = PATIENCE):
    """The lock of a folder, held until the end of a `with` block, until `.lock.release()`, or until this process ends.

    A process may take it several times. Where a file system knows no locks, filelock leaves a file that says whose it is in their place.

    Args:
        patience: seconds to wait for another process.

    Raises:
        Busy: another process holds it.
    """
    from filelock import FileLock, Timeout

    files.make_folder(folder.parent)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), is_singleton=True)
    try:
        return lock.acquire(timeout=patience)
    except Timeout as error:
        raise Busy(
            f"'{folder}' is being written by another process, such as a notebook that is still open or a second `lab run`: "
            "wait for it or end it, or choose another folder with --out (run_dir in a notebook)."
        ) from error
    except OSError as error:
        raise LabError(f"Cannot write to '{folder.parent}' ({error.strerror or error}): choose another folder with --out.") from error
