"""What the lab asks for, held against an environment that is made up."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from lab_utils import bootstrap, requirements


@pytest.fixture
def here(monkeypatch):
    """An environment with these packages; `here.owners` says which packages a module belongs to."""

    def version(name):
        if requirements.normal(name) not in found.installed:
            raise requirements.metadata.PackageNotFoundError(name)
        return found.installed[requirements.normal(name)]

    found = SimpleNamespace(installed={}, owners={})
    faked = SimpleNamespace(
        version=version,
        distributions=lambda: [SimpleNamespace(metadata={"Name": name}) for name in found.installed],
        packages_distributions=lambda: found.owners,
        PackageNotFoundError=requirements.metadata.PackageNotFoundError,
    )
    monkeypatch.setattr(requirements, "metadata", faked)
    return found


NOWHERE = 'sys_platform == "nowhere"'


@pytest.mark.parametrize(
    ("requirement", "version"),
    [
        ("peft>=0.20", "0.20.0"),
        ("peft>=0.20", "0.21.0.dev0"),
        ("peft>=0.20,<1", "0.99"),
        ("peft[extra]>=0.20", "0.20"),
        ("peft >= 0.20 ; python_version >= '3.11'", "0.20"),
        ("PEFT>=0.20", "0.20+cu128"),
        ("peft", "0.0"),
        (f"peft>=0.20; {NOWHERE}", None),
        (f"peft>=0.20,<1; {NOWHERE}", "2"),
    ],
)
def test_a_requirement_that_is_met_or_meant_for_other_machines_is_not_missing(here, requirement, version):
    here.installed = {"peft": version} if version else {}
    assert requirements.unmet([requirement]) == []


@pytest.mark.parametrize(
    ("requirement", "version"),
    [
        ("peft>=0.20", None),
        ("peft>=0.20", "0.9.9"),
        ("peft>=0.20,<1", "1.0"),
        ("peft[extra]>=0.20", "0.19"),
        (f"peft>=0.20; {NOWHERE.replace('==', '!=')}", "0.19"),
        ("peft==0.20", "0.20.1"),
        ("peft>=0.20", "a vendor's own"),
    ],
)
def test_what_is_absent_or_of_another_version_is_missing_as_it_was_written(here, requirement, version):
    here.installed = {"peft": version} if version else {}
    assert requirements.unmet(["numpy; " + NOWHERE, requirement]) == [requirement]


def test_damaged_metadata_count_as_absent(here):
    here.installed = {"peft": None}
    assert requirements.unmet(["peft"]) == ["peft"]
    assert requirements.everything() == {}


def test_every_spelling_of_a_name_is_one_name(here):
    assert {requirements.name_of(text) for text in ("Rouge_Score>=1", "rouge-score", "rouge.score[x]; " + NOWHERE)} == {"rouge-score"}


def test_only_packages_with_a_loaded_module_are_imported(here, monkeypatch):
    here.installed = {"numpy": "2.1", "protobuf": "5", "google-auth": "2", "peft": "0.20"}
    here.owners = {"numpy": ["numpy"], "google": ["protobuf", "Google_Auth"], "peft": ["peft"], "gone": ["gone"], "nameless": [None]}
    for module in ("numpy.linalg", "google.protobuf", "gone", "nameless"):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace())
    for loaded in [module for module in sys.modules if module.partition(".")[0] == "peft"]:
        monkeypatch.delitem(sys.modules, loaded)
    assert requirements.imported() == {"numpy": "2.1", "protobuf": "5", "google-auth": "2"}


def test_a_module_of_another_version_than_is_installed_is_found(here, monkeypatch):
    here.installed = {"numpy": "2.1.3", "torch": "2.11.0+cu128", "pandas": "2.2.3", "peft": "0.20"}
    for name, says in (("numpy", "1.26.4"), ("torch", "2.11.0"), ("pandas", None), ("absent", "1.0")):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__=says))
    for loaded in [module for module in sys.modules if module.partition(".")[0] == "peft"]:
        monkeypatch.delitem(sys.modules, loaded)
    assert requirements.loaded_in_another_version(["numpy", "torch", "pandas", "peft", "absent"]) == {"numpy": "1.26.4"}


def test_constraints_are_lines_that_pip_reads(here):
    assert requirements.constraints({"torch": "2.11.0+cu128", "numpy": "2.1.3", "odd": "a vendor's own"}) == (
        "numpy==2.1.3\ntorch==2.11.0+cu128\n"
    )


def test_pips_copy_of_packaging_does_where_there_is_no_other():
    code = (
        f"import sys; sys.path.insert(0, {str(bootstrap.ROOT)!r}); sys.modules['packaging'] = None\n"
        "from lab_utils import requirements\n"
        f"assert requirements.unmet(['nowhere>=1,<2', 'elsewhere; {NOWHERE}']) == ['nowhere>=1,<2']"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
