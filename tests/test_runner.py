import datetime
import json
import os
import re
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

from lab_utils import course, editions, files, kernel, runner
from lab_utils.errors import LabError


def planned(*only, recipe="tiny-causal", out=None, assignment=None, student=None, **given):
    return {notebook.number: values for notebook, values in runner.planned(recipe, assignment, only, given, out, student)}


@pytest.fixture
def week(tmp_path):
    def write(text):
        (tmp_path / "week1.yaml").write_text("title: t\nrecipe: tiny-causal\n" + text)
        return str(tmp_path / "week1.yaml")

    return write


def test_defaults_give_way_to_the_assignment_and_that_to_the_command_line(week):
    assignment = week("common: {seed: 1}\nnotebooks: {03_lora: {seed: 2}}\n")
    assert planned()["01"]["seed"] == 0
    assert [planned(recipe=None, assignment=assignment)[number]["seed"] for number in ("01", "03")] == [1, 2]
    assert planned(recipe=None, assignment=assignment, seed=3)["03"]["seed"] == 3


def test_a_students_own_values_are_run(week):
    assignment = week("vary: {salt: abcd, seed: 1000}\n")
    seeds = {planned(recipe=None, assignment=assignment, student=student)["02"]["seed"] for student in ("ann", "ben", "cy", "dan")}
    assert len(seeds) > 1
    with pytest.raises(LabError, match="give --assignment"):
        planned(student="ann")


def test_only_the_notebooks_that_are_handed_out_are_run(week):
    assert list(planned(recipe=None, assignment=week("hand_out: [1, 3]\n"))) == ["01", "03"]


def test_a_parameter_reaches_the_notebooks_that_have_it_and_no_others():
    values = planned(rank=8)
    assert values["03"]["rank"] == 8 and values["04"]["rank"] == 8
    assert "rank" not in values["01"]


def test_the_run_directory_follows_recipe_or_assignment_unless_it_is_given(week):
    assert planned()["01"]["run_dir"] == "runs/tiny-causal"
    assert planned(out="runs/mine")["01"]["run_dir"] == "runs/mine"
    assert planned(recipe=None, assignment=week(""))["01"]["run_dir"] == "runs/week1"
    named = week("common: {run_dir: runs/mine}\n")
    assert planned(recipe=None, assignment=named)["01"]["run_dir"] == "runs/mine"
    assert planned(recipe=None, assignment=named, out="runs/given")["01"]["run_dir"] == "runs/given"


def test_unknown_parameters_are_refused_with_the_nearest_name_all_at_once():
    with pytest.raises(LabError, match="unknown parameter 'rnk'.*did you mean 'rank'.*unknown parameter 'sede'"):
        planned(rnk=8, sede=1)


def test_a_parameter_that_only_other_notebooks_have_is_refused():
    with pytest.raises(LabError, match="unknown parameter 'rank'"):
        planned("01", rank=8)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", "x", "a whole number"),
        ("seed", 1.5, "a whole number"),
        ("seed", True, "a whole number"),
        ("prompt_examples", [1], "a whole number"),
        ("shots_tried", ["a"], "a list"),
        ("rank", 0, "greater than or equal to 1"),
        ("learning_rate", "fast", "valid number"),
        ("epochs", -1, "greater than 0"),
        ("target_modules", 7, "target_modules"),
    ],
)
def test_a_wrong_type_is_refused_before_anything_runs(name, value, words):
    with pytest.raises(LabError, match=name) as caught:
        planned(**{name: value})
    assert words in str(caught.value)


def test_command_line_values_are_read_as_yaml():
    read = runner.parse_assignments(["a=1", "b=true", "c=[2, 8]", "d=text", "e=2e-4"])
    assert read == {"a": 1, "b": True, "c": [2, 8], "d": "text", "e": 2e-4}


@pytest.mark.parametrize("word", ["seed", "=1", ""])
def test_a_command_line_word_without_name_or_value_is_refused(word):
    with pytest.raises(LabError, match="name=value"):
        runner.parse_assignments([word])


def test_notebooks_are_chosen_by_number_or_name_in_course_order():
    assert [n.number for n in course.choose(["03", "01_zero_shot_baseline"])] == ["01", "03"]
    with pytest.raises(LabError, match="no notebook '07'"):
        course.choose(["07"])


def test_a_notebook_is_done_only_with_equal_parameters_and_a_finished_record(tmp_path):
    notebook = course.NOTEBOOKS[2]
    output = tmp_path / f"{notebook.name}.ipynb"
    values = {"seed": 0}

    cells = nbformat.v4.new_notebook(cells=editions.make(course.source(notebook), "solution").cells).cells

    def leave(status="finished", parameters=values, cells=cells, **papermill):
        (tmp_path / "lora").mkdir(exist_ok=True)
        (tmp_path / "lora" / "run.json").write_text(json.dumps({"status": status}))
        metadata = {"papermill": {"end_time": "now", "exception": None, "parameters": parameters} | papermill}
        output.write_text(json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
        return runner.is_done(notebook, output, values, tmp_path)

    assert leave()
    assert not leave(status="stopped")
    assert not leave(parameters={"seed": 1})
    assert not leave(end_time=None)
    assert not leave(cells=cells[:-1])
    assert not leave(exception=True)
    output.write_text("{")
    assert not runner.is_done(notebook, output, values, tmp_path)


def test_progress_shows_only_the_lines_that_say_progress(capsys):
    runner.Progress().write("a table\n· step 1/2\nmore\n")
    assert capsys.readouterr().out == "      step 1/2\n"


# --- kernels ------------------------------------------------------------------------------------------------------------------------

NOTEBOOK = course.NOTEBOOKS[2]
HEADER = "# ---\n# jupyter:\n#   kernelspec:\n#     display_name: Python 3\n#     language: python\n#     name: python3\n# ---"


def written(folder, *cells):
    """A notebook's source with a parameter and these cells."""
    path = folder / f"{NOTEBOOK.name}.py"
    path.write_text("\n\n".join([HEADER, '# %% tags=["parameters"]\nseed = 0', *(f"# %%\n{cell}" for cell in cells)]), encoding="utf-8")
    return path


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Executes a notebook of these cells in the place of a real one; gives what became of it: the error or None, and the file."""

    def execute(*cells, output=tmp_path / "run.ipynb"):
        source = written(tmp_path, *cells)
        monkeypatch.setattr(course, "source", lambda notebook: source)
        try:
            runner.execute(NOTEBOOK, output, {"seed": 0})
        except LabError as error:
            text = str(error)
            assert "\n" not in text and text.endswith("."), text
            return text
        return None

    return execute


def outputs(path):
    """What each code cell printed; None for one that never ran."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code" and "seed" not in cell.source]
    return ["".join(o.get("text", "") for o in cell.outputs) if cell.execution_count else None for cell in cells]


ENDS = {
    "os.kill(os.getpid(), 9)": r"The kernel of 03_lora was killed at cell 4 \(import os\), most often for lack of memory: ",
    "os.kill(os.getpid(), 11)": r"The kernel of 03_lora crashed at cell 4 \(import os\) \(SIGSEGV\), in a compiled library: ",
    "os._exit(3)": r"The kernel of 03_lora ended at cell 4 \(import os\) by itself \(exit code 3\): ",
}


@pytest.mark.skipif(os.name == "nt", reason="signals are those of Unix")
@pytest.mark.parametrize("end", ENDS)
def test_a_kernel_that_is_gone_is_told_apart_its_notebook_kept_and_run_again(notebook, tmp_path, end):
    """The record may be finished already: only the notebook knows that its last cells did not run."""
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "run.json").write_text('{"status": "finished"}', encoding="utf-8")
    output, cells = tmp_path / "run.ipynb", ('print("before")', f"import os\n{end}", 'print("after")')
    text = notebook(*cells)
    assert re.match(ENDS[end], text) and text.endswith("What it did so far is in run.ipynb.")
    assert outputs(output)[0] == "before\n" and outputs(output)[2] is None
    assert not runner.is_done(NOTEBOOK, output, {"seed": 0}, tmp_path)
    cells = ('print("before")', "import os", 'print("after")')
    assert notebook(*cells) is None
    assert runner.is_done(NOTEBOOK, output, {"seed": 0}, tmp_path)
    assert outputs(output) == ["before\n", "", "after\n"]


AT_ITS_END = "import atexit, os, sys\natexit.register(lambda: os.write(sys.__stderr__.fileno(), b'Assertion failed: sockets\\n'))"


def test_what_a_kernel_complains_of_as_it_ends_is_not_shown_to_the_reader(notebook, capfd):
    assert notebook(AT_ITS_END) is None
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="signals are those of Unix")
def test_the_last_words_of_a_kernel_that_crashed_are_told_without_secrets(notebook, capfd, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "q" * 34)
    dying = "import os, sys\nos.dup2(sys.__stderr__.fileno(), 2)\nos.write(2, b'one\\ntwo hf_" + "q" * 34 + "\\n')\nos.abort()"
    assert "(SIGABRT; its last words: two [removed])" in notebook(dying)
    assert capfd.readouterr().err == ""


def test_a_kernel_that_does_not_start_is_one_sentence_with_its_last_words(notebook, tmp_path, monkeypatch, capfd):
    (tmp_path / "ipykernel_launcher.py").write_text("raise SystemExit('no zmq here')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said = r"The kernel of 03_lora did not start or does not answer \(Kernel died .*; its last words: no zmq here\): run `lab doctor`"
    assert re.match(said, notebook("1"))
    assert capfd.readouterr().err == ""


def test_no_kernel_outlives_a_run_that_is_stopped_in_the_middle_of_a_message(notebook, tmp_path, monkeypatch):
    def stopped(self, text):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.Progress, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        notebook(f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\nprint('far', flush=True)\ntime.sleep(60)")
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_kernel_that_never_answers_is_one_sentence(notebook, tmp_path, monkeypatch):
    (tmp_path / "ipykernel_launcher.py").write_text("import time\ntime.sleep(60)", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(kernel, "START_SECONDS", 1)
    assert "did not start or does not answer" in notebook("1")


def test_a_notebook_that_prints_20_megabytes_ends_and_is_kept(notebook, tmp_path):
    line = "x" * 999
    assert notebook(f"for _ in range(20_000):\n    print({line!r})", 'print("after")') is None
    printed, after = outputs(tmp_path / "run.ipynb")
    assert after == "after\n" and len(printed) == 20_000_000


def test_a_place_that_cannot_be_written_is_said_before_anything_runs(notebook, tmp_path):
    ran = tmp_path / "ran"
    text = notebook(f"open({str(ran)!r}, 'w')", output=tmp_path / "absent" / "run.ipynb")
    assert "Cannot write" in text and "No such file or directory" in text and not ran.exists()


def test_a_copy_that_cannot_be_written_on_the_way_stops_nothing_and_is_said_at_the_end(notebook, tmp_path, monkeypatch):
    write, output = files.write_bytes, tmp_path / "run.ipynb"

    def full(path, content):
        if path == output and output.exists():
            raise LabError(f"Cannot write '{path.name}' (No space left on device): free some space.")
        write(path, content)

    monkeypatch.setattr(files, "write_bytes", full)
    text = notebook(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    assert text.startswith("03_lora ran to its end, and its records are written. The notebook itself is not kept whole: Cannot write")
    assert (tmp_path / "ran").exists() and not runner.is_done(NOTEBOOK, output, {"seed": 0}, tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"cells": [', b"\xff\xfe", b"[]", b'{"cells": 3, "metadata": 4}'])
def test_half_a_notebook_is_not_done_and_is_replaced(notebook, tmp_path, content):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "run.json").write_text('{"status": "finished"}', encoding="utf-8")
    output = tmp_path / "run.ipynb"
    output.write_bytes(content)
    assert not runner.is_done(NOTEBOOK, output, {"seed": 0}, tmp_path)


def test_the_duration_of_a_notebook_does_not_follow_a_clock_that_is_set_back(notebook, tmp_path, monkeypatch):
    moments = iter(range(10_000, 0, -1000))

    class Back(datetime.datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime.datetime.fromtimestamp(next(moments, 0), datetime.UTC)

    monkeypatch.setattr("papermill.engines.datetime.datetime", Back)
    assert notebook("1") is None
    assert 0 < json.loads((tmp_path / "run.ipynb").read_text(encoding="utf-8"))["metadata"]["papermill"]["duration"] < 60


PARENT = """
import sys
from pathlib import Path
from lab_utils import course, runner
course.source = lambda notebook: Path(sys.argv[1])
runner.execute(course.NOTEBOOKS[2], Path(sys.argv[2]), {"seed": 0})
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are those of Unix")
def test_of_a_lab_run_that_is_killed_the_notebook_is_kept_and_the_kernel_ends(tmp_path):
    noting = f"import os, time\nfrom pathlib import Path\nPath({str(tmp_path / 'kernel')!r}).write_text(str(os.getpid()))\ntime.sleep(300)"
    source = written(tmp_path, 'print("before")', noting)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(source), str(tmp_path / "run.ipynb")])
    deadline, note = time.monotonic() + 60, tmp_path / "kernel"
    while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    kernel_process = psutil.Process(int(note.read_text()))
    parent.kill()
    parent.wait()
    try:
        kernel_process.wait(20)
    finally:
        if kernel_process.is_running():
            kernel_process.kill()
    assert outputs(tmp_path / "run.ipynb")[0] == "before\n"
    assert not runner.is_done(NOTEBOOK, tmp_path / "run.ipynb", {"seed": 0}, tmp_path)
