"""`make install`, pip as the lab calls it, and what the first cell says before it looks at packages."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab_utils import bootstrap, environment, session
from lab_utils.bootstrap import PipRun
from lab_utils.errors import LabError


def test_nothing_is_missing_where_the_tests_run():
    assert bootstrap.missing_packages() == []


def test_the_one_list_is_pyprojects_and_the_packaged_model_is_on_it():
    project = bootstrap.project()
    assert bootstrap.needed() == [*project["project"]["dependencies"], project["tool"]["lab"]["model_package"]]


def test_versions_compare_as_numbers():
    assert bootstrap.numbers("0.9") < bootstrap.numbers("0.16.1+cu128") < bootstrap.numbers("2.0")


def test_bootstrap_needs_nothing_but_the_standard_library():
    code = f"import sys; sys.path.insert(0, {str(bootstrap.ROOT)!r}); import lab_utils.bootstrap"
    assert subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True).returncode == 0


# --- Python -------------------------------------------------------------------------------------------------------------------


def allowed():
    first, end = re.findall(r"3\.(\d+)", bootstrap.project()["project"]["requires-python"])
    return range(int(first), int(end))


@pytest.fixture
def python(monkeypatch):
    """Makes this a Python of another version."""
    return lambda *version: monkeypatch.setattr(bootstrap.sys, "version_info", version)


def test_every_python_that_pyproject_allows_is_supported(python):
    for minor in allowed():
        python(3, minor, 9)
        assert bootstrap.unsupported_python() is None


@pytest.mark.parametrize("version", [(2, 7, 18), (3, allowed()[0] - 1, 13), (3, allowed()[-1] + 1, 0), (4, allowed()[0], 0)])
def test_another_python_is_refused_with_those_that_are_supported(python, version, tmp_path):
    python(*version)
    said = f"Python {'.'.join(map(str, version))} is not supported; the lab needs Python 3.{allowed()[0]} to 3.{allowed()[-1]}"
    assert bootstrap.unsupported_python() == said
    with pytest.raises(SystemExit, match=f"error: {re.escape(said)}"):
        bootstrap.create_venv(tmp_path / "venv")
    assert not (tmp_path / "venv").exists()


def test_a_notebook_under_another_python_says_where_to_choose_one_before_a_module_is_read_that_it_may_not_understand(python, monkeypatch):
    for module in ("environment", "session", "requirements", "errors"):
        monkeypatch.setitem(sys.modules, f"lab_utils.{module}", None)  # importing it fails
    python(3, allowed()[0] - 1, 0)
    with pytest.raises(SystemExit, match="not supported.*Colab.*Kaggle.*make install PYTHON="):
        bootstrap.ensure()


# --- pip ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """Runs a pip that prints these lines; returns what came of it and the command."""
    commands = []

    def run(*lines, code=0, words=("install", "peft")):
        class Process:
            stdout, returncode = iter(f"{line}\n" for line in lines), code

            def __init__(self, command, **options):
                commands.append(command)

            def __enter__(self):
                return self

            def __exit__(self, *error):
                return None

        monkeypatch.setattr(bootstrap.subprocess, "Popen", Process)
        return bootstrap.pip(*words, log=tmp_path / "log"), commands[-1]

    return run


def test_pip_is_this_pythons_and_asks_nothing(pip):
    run, command = pip()
    assert run.done and command[:5] == [sys.executable, "-m", "pip", "install", "peft"] and "--no-input" in command


def test_large_downloads_are_shown_while_pip_runs_and_the_rest_is_in_the_log(pip, capsys, tmp_path):
    lines = [
        "Collecting torch",
        "  Downloading https://index/torch-2.13.0-cp311.whl (888.1 MB)",
        "  Downloading toy-1.0-py3-none-any.whl (1.5 GB)",
        "  Downloading small-1.0-py3-none-any.whl (9.9 MB)",
        "  Downloading tiny-1.0.whl.metadata (12 kB)",
        "Installing collected packages: torch, toy, small",
    ]
    pip(*lines)
    pip("once more")
    assert capsys.readouterr().out.splitlines() == ["  torch (888.1 MB)", "  toy (1.5 GB)", "  installing 3 packages"]
    assert (tmp_path / "log").read_text(encoding="utf-8").splitlines() == [*lines, "once more"]


def test_pips_reason_is_what_conflicts_or_its_first_complaint_on_one_line(pip):
    conflict = [
        "ERROR: Cannot install a",
        "",
        "The conflict is caused by:",
        "    a 1 depends on b>=2",
        "    The user requested b==1",
        "",
        "x",
    ]
    assert pip(*conflict, code=1)[0].reason == "a 1 depends on b>=2; The user requested b==1"
    assert pip("noise", "ERROR: No space left.", "ERROR: more", code=1)[0].reason == "No space left"
    assert pip("  > output of a build", "      ERROR: No matching distribution", code=1)[0].reason == "No matching distribution"
    assert pip("noise", code=2)[0].reason == "see the log"
    assert "\n" not in pip("ERROR: " + "long " * 500, code=1)[0].reason and len(pip("ERROR: " + "long " * 500, code=1)[0].reason) < 300


# --- make install -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def venv(tmp_path, monkeypatch):
    """An environment's folder; `pips` are the commands that would have filled it, `answers` what they say."""
    made = SimpleNamespace(folder=tmp_path / "venv", pips=[], answers=[])

    def create(command, **options):
        made.folder.mkdir()
        return SimpleNamespace(returncode=0)

    def pip(*words, **options):
        made.pips.append((words, options))
        return made.answers.pop(0) if made.answers else PipRun(True, "")

    monkeypatch.setattr(bootstrap.subprocess, "run", create)
    monkeypatch.setattr(bootstrap, "pip", pip)
    return made


def test_an_environment_gets_the_lab_at_the_tested_versions_and_the_model_without_its_dependencies(venv):
    bootstrap.create_venv(venv.folder, ["--index-url", "x"])
    (lab, options), (model, _) = venv.pips
    assert lab[:3] == model[:3] == ("install", "--index-url", "x")
    assert lab[lab.index("-c") + 1] == str(bootstrap.ROOT / "constraints.txt") and f"{bootstrap.ROOT}[test]" in lab
    assert model[3:] == ("--no-deps", bootstrap.needed()[-1])
    assert Path(options["python"]).is_relative_to(venv.folder) and options["log"].is_relative_to(venv.folder)
    assert (venv.folder / ".installed").exists()


def test_a_failed_installation_is_one_sentence_and_is_not_taken_for_a_finished_one(venv):
    venv.answers = [PipRun(True, ""), PipRun(False, "ERROR: No matching distribution\n")]
    with pytest.raises(SystemExit, match=r"^error: the installation failed \(No matching distribution\); .*run `make install` again"):
        bootstrap.create_venv(venv.folder)
    assert not (venv.folder / ".installed").exists()


def test_an_environment_that_cannot_be_created_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=1))
    with pytest.raises(SystemExit, match="^error: could not create.*apt install python3-venv"):
        bootstrap.create_venv(tmp_path / "venv")


# --- in a notebook ------------------------------------------------------------------------------------------------------------


class Shell:
    """IPython's shell as far as it is asked."""

    def set_custom_exc(self, kinds, handler):
        self.kinds, self.handler = kinds, handler

    def _showtraceback(self, kind, value, lines):
        self.shown = lines


def test_a_lab_error_is_shown_as_its_sentence(monkeypatch):
    shell = Shell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    bootstrap.show_lab_errors_as_sentences()
    assert shell.kinds == (LabError,)
    shell.handler(shell, LabError, LabError("Do this."), None)
    assert shell.shown == ["LabError: Do this."]


@pytest.mark.parametrize("ipython", [None, SimpleNamespace(get_ipython=lambda: None)])
def test_a_script_without_ipythons_shell_needs_none(monkeypatch, ipython):
    if ipython is None:
        monkeypatch.delitem(sys.modules, "IPython", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "IPython", ipython)
    bootstrap.show_lab_errors_as_sentences()
    assert "IPython" not in sys.modules or sys.modules["IPython"] is ipython


@pytest.mark.parametrize(
    "error",
    [
        ImportError("cannot import name 'x' from 'transformers'"),
        OSError("libcudart.so.12: cannot open shared object file"),
        ValueError("numpy.dtype size changed"),
    ],
)
def test_what_is_installed_and_cannot_be_imported_is_one_sentence(monkeypatch, error):
    def broken():
        raise error

    monkeypatch.setattr(session, "make_ready", lambda place: None)
    monkeypatch.setattr(environment, "machine", broken)
    with pytest.raises(LabError, match="cannot be imported .*Kernel > Restart.*doctor") as caught:
        bootstrap.ensure()
    assert str(error) in str(caught.value)
