"""The versions that the lab asks for and those that it was tested with, against what is installed."""

from __future__ import annotations

from collections.abc import Mapping

from lab_utils import bootstrap
from lab_utils.requirements import normal


def requirements() -> list:
    """What the lab asks for on this system (`packaging.requirements.Requirement`), the package with the default model last."""
    from packaging.requirements import Requirement

    return [one for one in map(Requirement, bootstrap.needed()) if one.marker is None or one.marker.evaluate()]


def tested() -> dict[str, str]:
    """The versions that constraints.txt pins, by normalized name."""
    from packaging.requirements import Requirement

    lines = (bootstrap.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {normal(pin.name): next(iter(pin.specifier)).version for pin in pins}


def outside(installed: Mapping[str, str]) -> list[str]:
    """Each requirement that is absent or out of its range, in words."""
    found = []
    for requirement in requirements():
        version = installed.get(requirement.name)
        if version is None:
            found.append(f"{requirement} (not there)")
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement} ({version} is there)")
    return found


def newer(installed: Mapping[str, str]) -> list[str]:
    """Each requirement that is newer than tested, in words. What a build adds to its version ("+cu128") does not count."""
    from packaging.version import Version

    pins, found = tested(), []
    for requirement in requirements():
        version, pin = installed.get(requirement.name), pins.get(normal(requirement.name))
        if version and pin and Version(Version(version).public) > Version(pin):
            found.append(f"{requirement.name} {version} (tested: {pin})")
    return found


def supports(python: str) -> tuple[bool, str]:
    """Whether the lab supports that version of Python, and which it does."""
    from packaging.specifiers import SpecifierSet

    supported = bootstrap.project()["project"]["requires-python"]
    return SpecifierSet(supported).contains(python, prereleases=True), supported
