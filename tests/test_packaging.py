"""One dependency list, and documents that name only what exists."""

import re
import subprocess
import sys

import yaml

from lab_utils import bootstrap, readme

ROOT = bootstrap.ROOT
README = (ROOT / "README.md").read_text(encoding="utf-8")


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line)


def requirements():
    project = bootstrap.project()["project"]
    return [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]


def test_every_requirement_is_pinned_inside_its_range():
    for requirement in requirements():
        name, oldest = requirement.split(">=")
        assert bootstrap.numbers(pins()[name]) >= bootstrap.numbers(oldest), requirement


def test_the_conda_file_only_points_at_the_one_list():
    pip = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"][-1]["pip"]
    assert pip == ["--constraint constraints.txt", "-e .[test]"]


def test_make_targets_named_in_the_documents_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for document in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"`?make ([a-z][\w-]*)", (ROOT / document).read_text(encoding="utf-8")))
        assert named <= targets, document


def test_links_to_files_in_the_documents_lead_somewhere():
    for document in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / document).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{document}: {target}"


def test_ruff_finds_nothing():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_readmes_figures_are_those_of_the_records():
    assert readme.filled(README) == README, "run `make readme`"
