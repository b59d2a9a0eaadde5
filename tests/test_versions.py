"""Version ranges: what pyproject.toml allows, what the tests are held to at its ends, and which tests those are."""

import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import versions
from packaging.specifiers import SpecifierSet
from packaging.version import Version

HELD = Path(sys.prefix) / "pins.txt"  # there in the environments that `make test-oldest` and its kin make


@pytest.mark.parametrize("file", ["constraints.txt", "tests/colab.txt"])
def test_pins_lie_in_the_ranges_of_pyproject(file):
    pins = versions.pinned(versions.ROOT / file)
    outside = [f"{name}=={pins[name]}" for name, allowed in versions.dependencies().items() if name in pins and pins[name] not in allowed]
    assert not outside


def test_each_direct_dependency_has_a_lower_bound_and_at_the_oldest_end_just_that_version():
    pins = versions.pins("oldest")
    for name, allowed in versions.dependencies().items():
        assert any(part.operator == ">=" for part in allowed), name
        if name != "torch":
            assert pins[name] in allowed and Version(pins[name]) == min(Version(part.version) for part in allowed), name


def test_the_newest_end_holds_nothing_but_torch():
    assert set(versions.pins("newest")) == {"torch"}


@pytest.mark.parametrize("kind", versions.KINDS)
def test_torch_stays_at_the_tested_version_unless_another_is_asked_for(kind):
    tested = versions.pinned(versions.ROOT / "constraints.txt")["torch"]
    assert versions.pins(kind)["torch"] == tested
    assert versions.pins(kind, torch="9.9")["torch"] == "9.9"


def test_colabs_file_says_whence_and_when():
    text = (versions.ROOT / "tests" / "colab.txt").read_text(encoding="utf-8")
    assert "googlecolab/backend-info" in text and "2026" in text


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """Commands that would be run, and whether pip succeeds."""
    found = SimpleNamespace(commands=[], code=0)

    def run(command, **options):
        found.commands.append(command)
        if command[1:3] == ["-m", "venv"]:
            Path(command[3]).mkdir()
        return SimpleNamespace(returncode=found.code)

    monkeypatch.setattr(versions.subprocess, "run", run)
    return found


@pytest.mark.parametrize("kind", versions.KINDS)
def test_an_environment_is_installed_under_its_pins_with_the_lab_and_the_model(pip, tmp_path, kind):
    versions.install(kind, tmp_path / "env", pip_arguments=("--extra", "word"))
    _, lab, model = pip.commands
    held = Path(lab[lab.index("-c") + 1])
    assert held.parent == tmp_path / "env"
    assert versions.pinned(held) == versions.pins(kind)
    assert lab[-1] == f"{versions.ROOT}[test]" and "--extra" in lab
    assert ("eager" in lab) == (kind == "newest")
    assert "--no-deps" in model


def test_versions_that_pip_cannot_put_together_are_one_sentence(pip, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    pip.code = 1
    with pytest.raises(SystemExit, match="could not install.*raise the bound"):
        versions.install("oldest", tmp_path)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"test_a.py": "def test():\n    from peft import LoraConfig"}, True),
        ({"test_a.py": "import pytest\ndef test():\n    pytest.importorskip('bitsandbytes')"}, True),
        ({"test_a.py": "import toys", "toys.py": "import safetensors.torch"}, True),
        ({"test_a.py": "import toys", "toys.py": "from lab_utils import models"}, True),
        ({"test_a.py": "import toys, json", "toys.py": "import datasetsy"}, False),
        ({"test_a.py": "from lab_utils import yamls\nimport torch"}, False),
    ],
)
def test_a_test_is_of_the_hf_layer_if_it_or_what_it_imports_needs_one_of_the_libraries(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert versions.hf_layer(tmp_path / "test_a.py") == expected


@pytest.mark.parametrize(
    "name", ["api_drift", "check_qlora", "encoding", "generation", "gguf", "hub", "layers", "models", "sources", "training"]
)
def test_the_tests_of_models_and_data_are_of_the_hf_layer(name):
    assert versions.hf_layer(versions.ROOT / "tests" / f"test_{name}.py")


@pytest.mark.hf
@pytest.mark.skipif(not HELD.exists(), reason="only in the environments of the version ranges")
def test_this_environment_holds_the_versions_that_it_was_made_for():
    """A local part such as +cpu does not count."""
    wrong = {}
    for name, version in versions.pinned(HELD).items():
        found = metadata.version(name)
        if not SpecifierSet(f"=={version}").contains(found, prereleases=True):
            wrong[name] = (version, found)
    assert not wrong
