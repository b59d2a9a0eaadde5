"""The lab's requirements held against what is installed here and what this session has already imported.

A notebook's first cell asks before anything is installed: beyond the standard library only `packaging` is needed, and pip carries a copy.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata


def unmet(requirements: Iterable[str]) -> list[str]:
    """Those that are absent here or of another version, as they were written; what a marker leaves out on this machine is never missing."""
    found = []
    for text in requirements:
        requirement = _parsed(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        version = installed(requirement.name)
        if version is None or not _contains(requirement.specifier, version):
            found.append(text)
    return found


def name_of(requirement: str) -> str:
    return normal(_parsed(requirement).name)


def normal(name: str) -> str:
    """A package's name in the one spelling that all its spellings share."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(name: str) -> str | None:
    """The installed version of a package; None where it is absent, or its metadata are damaged."""
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, KeyError):
        return None


def everything() -> dict[str, str]:
    """Version of every installed package, by name."""
    names = {found.metadata["Name"] for found in metadata.distributions()}
    return {normal(name): version for name in names if name and (version := installed(name))}


def imported() -> dict[str, str]:
    """Installed version of every package of which this session has imported something, by name."""
    loaded = {module.partition(".")[0] for module in sys.modules}
    names = {name for module, owners in metadata.packages_distributions().items() if module in loaded for name in owners}
    return {normal(name): version for name in names if name and (version := installed(name))}


def loaded_in_another_version(names: Sequence[str]) -> dict[str, str]:
    """Those whose imported module says another version than is installed by now, each with what its module says.

    Args:
        names: packages whose module has the package's name and says its version.
    """
    found = {}
    for name in names:
        loaded, now = getattr(sys.modules.get(name), "__version__", None), installed(name)
        if isinstance(loaded, str) and now and _without_build(loaded) != _without_build(now):
            found[name] = str(loaded)
    return found


def constraints(versions: dict[str, str]) -> str:
    """A constraints file for pip that holds these packages at these versions. A version that pip could not read is left out."""
    lines = []
    for name, version in sorted(versions.items()):
        try:
            _parsed(line := f"{name}=={version}")
        except ValueError:  # such as a vendor's own numbering
            continue
        lines.append(f"{line}\n")
    return "".join(lines)


def _parsed(text: str):
    try:
        from packaging.requirements import Requirement
    except ImportError:
        from pip._vendor.packaging.requirements import Requirement
    return Requirement(text)


def _contains(specifier, version: str) -> bool:
    try:
        return specifier.contains(version, prereleases=True)
    except ValueError:  # no version by the rules
        return False


def _without_build(version: str) -> str:
    """`2.11.0+cu128` as `2.11.0`."""
    return version.partition("+")[0]
