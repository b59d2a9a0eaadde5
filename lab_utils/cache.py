"""What is prepared once and kept: converted models and tokenised data."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from lab_utils.errors import LabError

WRITE_ERRORS = (OSError, SafetensorError)  # safetensors reports a full disk in its own way


def folder() -> Path:
    """Where prepared things are kept: `LAB_CACHE`, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "summarization-lab"
    return Path(os.environ.get("LAB_CACHE", default))


def prepared(name: str, write: Callable[[Path], None], needs: str = "1 GB") -> Path:
    """The cache folder of that name, written on first use; a half-written one is never left under its final name."""
    target = folder() / name
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise LabError(
            f"Cannot write to the cache folder ({error.strerror}): free some space there or set LAB_CACHE to another folder."
        ) from error
    try:
        write(unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(target)
    except WRITE_ERRORS as error:
        if not target.is_dir():  # another process may have prepared it meanwhile
            reason = getattr(error, "strerror", None) or error
            raise LabError(f"'{target.name}' could not be prepared in the cache ({reason}): it needs {needs}; set LAB_CACHE.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target
