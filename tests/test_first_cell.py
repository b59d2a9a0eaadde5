"""The first code cell of the notebooks, executed; the version that each carries; and the badges that open them."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from lab_utils import bootstrap, course, editions, handout

SOURCES = [course.source(notebook) for notebook in course.NOTEBOOKS]
EACH = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
PAGES = ("README.md", "notebooks/INSTRUCTORS.md", "notebooks/TROUBLESHOOTING.md")
VERSION = re.compile(r'^bootstrap\.ensure\(notebook="(\w+)"\)$', re.MULTILINE)


def first_cell(made):
    return next(cell.source for cell in made.cells if cell.cell_type == "code")


CELL = first_cell(editions.make(SOURCES[0], "student"))


def constant(name):
    return re.search(rf'^{name} = "(.+?)"', CELL, re.MULTILINE)[1]


REPOSITORY, REVISION = constant("REPOSITORY"), constant("REVISION")


# --- finding and fetching -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Executes the cell in `tmp_path`; `run.started` are the commands it started, `run.ensured` the versions it asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def execute(git=lambda part: pytest.fail("started git")):
        def start(command, **options):
            execute.started.append(command)
            git(Path(command[-1]))

        monkeypatch.setattr(subprocess, "run", start)
        monkeypatch.setattr(subprocess, "Popen", lambda *command, **options: pytest.fail(f"started {command}"))
        exec(compile(CELL, "first cell", "exec"), {"__name__": "__main__"})

    execute.started, execute.ensured = [], []
    monkeypatch.setattr(bootstrap, "ensure", lambda notebook: execute.ensured.append(notebook))
    return execute


def lab(folder):
    """A folder that is taken for the lab."""
    (folder / "lab_utils").mkdir(parents=True)
    (folder / "lab_utils" / "bootstrap.py").touch()


def failing(stderr="fatal: unable to access: Could not resolve host: github.com\n", leaves="lab_utils/half"):
    def git(part):
        (part / leaves).mkdir(parents=True)
        raise subprocess.CalledProcessError(128, "git", stderr=stderr)

    return git


@pytest.mark.parametrize("below", [".", "notebooks", "notebooks/mine"])
def test_a_lab_around_the_notebook_is_used_and_nothing_is_started(run, tmp_path, monkeypatch, below):
    lab(tmp_path)
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / below)
    run()
    assert Path.cwd() == tmp_path and sys.path[0] == str(tmp_path) and run.ensured == VERSION.findall(CELL)


def test_without_one_the_badges_revision_is_fetched_and_found_again(run, tmp_path, monkeypatch):
    run(git=lab)
    (command,) = run.started
    assert command[:2] == ["git", "clone"] and command[-2] == REPOSITORY and command[command.index("--branch") + 1] == REVISION
    assert Path.cwd() == tmp_path / "summarization-lab"
    run()  # the same session
    monkeypatch.chdir(tmp_path)
    run()  # after a restart
    assert len(run.ensured) == 3 and [path.name for path in tmp_path.iterdir()] == ["summarization-lab"]


def test_a_failed_fetch_is_one_sentence_with_gits_reason_and_leaves_nothing_that_is_taken_for_the_lab(run, tmp_path):
    with pytest.raises(SystemExit, match="could not be fetched .*resolve host.*Settings > Internet.*run this cell again") as caught:
        run(git=failing(leaves="lab_utils/bootstrap.py"))
    assert "\n" not in str(caught.value.code) and caught.value.__suppress_context__ and run.ensured == []
    run(git=lab)
    assert len(run.started) == 2 and len(run.ensured) == 1


def test_half_of_an_earlier_fetch_is_fetched_anew(run, tmp_path):
    lab(tmp_path / ".summarization-lab.part")
    run(git=lab)  # which fails where a folder stands
    assert [path.name for path in tmp_path.iterdir()] == ["summarization-lab"]


def test_a_missing_git_is_one_sentence(run):
    def absent(part):
        raise FileNotFoundError(2, "No such file or directory", "git")

    with pytest.raises(SystemExit, match="could not be fetched .*No such file.*takes git"):
        run(git=absent)


def test_a_folder_of_the_labs_name_that_is_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "summarization-lab" / "lab_utils").mkdir(parents=True)
    (tmp_path / "summarization-lab" / "mine.txt").touch()
    with pytest.raises(SystemExit, match="no other folder named summarization-lab"):
        run(git=lab)
    assert (tmp_path / "summarization-lab" / "mine.txt").exists() and run.ensured == []


def test_somebody_elses_lab_utils_is_not_the_lab(run, tmp_path):
    (tmp_path / "lab_utils").mkdir()
    run(git=lab)
    assert len(run.started) == 1


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_really_fetches_that_branch_without_asking_for_anything(tmp_path):
    origin = tmp_path / "origin"
    (origin / "lab_utils").mkdir(parents=True)

    def git(*words):
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", *words], cwd=origin, check=True, capture_output=True)

    git("init", "--initial-branch", "other")
    for branch in ("other", "badges"):
        (origin / "lab_utils" / "bootstrap.py").write_text(f"def ensure(notebook):\n    print({branch!r})\n", encoding="utf-8")
        git("checkout", "-B", branch)
        git("add", ".")
        git("commit", "-m", branch)
    git("checkout", "other")
    code = CELL.replace(f'"{REPOSITORY}"', repr(origin.as_uri())).replace(f'REVISION = "{REVISION}"', 'REVISION = "badges"')
    (tmp_path / "content").mkdir()
    for _ in range(2):
        done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path / "content", capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("badges\n", "")


ALONE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("pip", sys.argv[2] + "/__init__.py", submodule_search_locations=[sys.argv[2]])
sys.modules["pip"] = importlib.util.module_from_spec(spec)
sys.path.insert(0, sys.argv[1])
from lab_utils import bootstrap
bootstrap.pip = lambda *words, **options: bootstrap.PipRun(False, "ERROR: this is what it says")
try:
    bootstrap.ensure()
except Exception as error:
    print(type(error).__name__, error)
"""


def test_beside_the_standard_library_and_pip_nothing_is_needed_until_pip_has_run():
    pip = Path(importlib.util.find_spec("pip").origin).parent
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, str(bootstrap.ROOT), str(pip)],
        capture_output=True, text=True, env=os.environ | {"COLAB_RELEASE_TAG": "x"},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"Installing {len(bootstrap.needed())} packages"), done
    assert lines[1].startswith("LabError pip could not install ") and "(this is what it says)" in lines[1]


# --- the version of a notebook ------------------------------------------------------------------------------------------------


@EACH
def test_every_edition_and_every_assignment_of_a_notebook_carries_the_version_of_the_committed_one(source):
    committed = VERSION.findall(first_cell(nbformat.read(source.with_suffix(".ipynb"), as_version=4)))
    for edition in editions.EDITIONS:
        for values in (None, {"seed": 12345, "assignment": "week-1", "student": "ann"}):
            assert VERSION.findall(first_cell(editions.make(source, edition, values))) == committed, "run `make notebooks`"
    assert len(committed) == 1 and bootstrap.of_this_checkout(committed[0])


def test_each_notebook_has_a_version_of_its_own_and_the_sources_have_none():
    assert len({VERSION.findall(first_cell(editions.make(source, "student")))[0] for source in SOURCES}) == len(SOURCES)
    for source in SOURCES:
        assert VERSION.findall(source.read_text(encoding="utf-8")) == [bootstrap.OF_THE_SOURCE]


def test_what_an_assignment_hands_out_is_of_this_checkout(tmp_path):
    written = handout.write("first-week", tmp_path, ["ann"], github="ada/course/main/week-1")
    notebooks = [first_cell(nbformat.read(path, as_version=4)) for path in written if path.suffix == ".ipynb"]
    versions = [VERSION.findall(cell) for cell in notebooks]
    assert len(versions) > 3 and all(len(found) == 1 and bootstrap.of_this_checkout(found[0]) for found in versions), "run `make notebooks`"


@pytest.fixture
def version(tmp_path):
    """The version of notebook 3 after a change of its source."""

    def after(old, new):
        text = SOURCES[2].read_text(encoding="utf-8")
        assert old in text
        (tmp_path / SOURCES[2].name).write_text(text.replace(old, new, 1), encoding="utf-8")
        return VERSION.findall(first_cell(editions.make(tmp_path / SOURCES[2].name, "student")))[0]

    return after


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("# # 3. LoRA", "# # 3. LoRa", True),
        ("seed = 0", "seed = 1", True),
        ("from lab_utils import adapters", "from lab_utils import  adapters", True),
        ('REVISION = "main"', 'REVISION = "next"', True),
        ("**Instructor, 3", "**Instructor,  3", False),
        ("    # BEGIN SOLUTION\n", "    # BEGIN SOLUTION\n    # in one line\n", False),
    ],
)
def test_a_version_changes_with_what_students_see_and_with_nothing_else(version, old, new, seen):
    assert (version(old, new) != version(old, old)) is seen


# --- badges -------------------------------------------------------------------------------------------------------------------


def links(text):
    """Repository, revision and path of every file on GitHub, or opened from there, that a text links to."""
    return re.findall(r"github(?:\.com)?/([\w.-]+/[\w.-]+)/blob/([\w.-]+)/([\w./-]+)", text)


def badges(text):
    return [line for line in re.findall(r"https://(?:colab\.research|kaggle\.com/kernels)[^)\s]+", text) if "blob" in line]


def test_the_first_cell_fetches_the_repository_that_pyproject_names():
    assert bootstrap.project()["project"]["urls"]["Repository"] == REPOSITORY


@pytest.mark.parametrize("page", PAGES)
def test_every_link_into_the_repository_opens_a_file_at_the_revision_that_the_first_cell_fetches(page):
    for repository, revision, path in links((bootstrap.ROOT / page).read_text(encoding="utf-8")):
        assert (f"https://github.com/{repository}", revision) == (REPOSITORY, REVISION)
        assert (bootstrap.ROOT / path).is_file()


def test_the_readmes_badges_are_those_that_a_handout_of_this_repository_would_have():
    place = handout.Place(*REPOSITORY.removeprefix("https://github.com/").split("/"), REVISION, "notebooks")
    expected = [address for source in SOURCES for address in place.links(f"{source.stem}.ipynb").values()]
    assert sorted(badges((bootstrap.ROOT / "README.md").read_text(encoding="utf-8"))) == sorted(expected)


def test_links_of_a_handout_open_the_files_that_were_written(tmp_path):
    handout.write(None, tmp_path / "week-1", github="ada/course/autumn/week-1")
    opened = set()
    for path in (tmp_path / "week-1" / "student").glob("*.ipynb"):
        found = links(nbformat.read(path, as_version=4).cells[0].source)
        opened |= {(repository, revision, tmp_path / target == path) for repository, revision, target in found}
        assert len(found) == 2
    assert opened == {("ada/course", "autumn", True)}
