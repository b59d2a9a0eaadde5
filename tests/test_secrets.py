"""Tokens that were planted: in the environment, in data, where parameters stand and in errors. Nothing that is written may hold one."""

import io
import json
import sys
import types
import zipfile
from dataclasses import replace

import pytest
from classroom import honest

from lab_utils import (
    assignment_file,
    assignments,
    bootstrap,
    cli,
    commands,
    comparison,
    config,
    course,
    environment,
    handout,
    kernel,
    methods,
    report,
    runner,
    runs,
    scrubbing,
    sources,
)
from lab_utils.bench import measure
from lab_utils.bench import run as bench
from lab_utils.errors import LabError
from lab_utils.submissions import gradebook, packing
from lab_utils.sweep import running

# In two parts, so that no scanner of repositories takes a test for a leak.
SECRETS = {
    "HF_TOKEN": "hf_" + "PlantedForTheTests0123456789abcdef",
    "KAGGLE_KEY": "0123456789abcdef" + "fedcba9876543210",
    "GITHUB_TOKEN": "gh" + "p_PlantedForTheTests0123456789abcdef00",
    "DB_PASSWORD": "correct-h0rse" + "+battery",
}
TOKEN = SECRETS["HF_TOKEN"]
ADDRESS = "https://ann:" + "pa55word-of-ann@data.example.org/chats"
PLANTED = {**SECRETS, "an address": "pa55word-of-ann"}
EVERYTHING = f"{' '.join(SECRETS.values())} {ADDRESS}"


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def found_in(folder):
    """File and what was planted, for each byte sequence under a folder that is a secret; zips are looked into."""

    def look(name, content):
        if content[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for entry in archive.infolist():
                    yield from look(f"{name}/{entry.filename}", archive.read(entry))
        for what, secret in PLANTED.items():
            if secret.encode() in content or secret in name:
                yield name, what

    return [
        hit for path in sorted(folder.rglob("*")) if path.is_file() for hit in look(path.relative_to(folder).as_posix(), path.read_bytes())
    ]


def silent(text):
    assert [what for what, secret in PLANTED.items() if secret in text] == []
    return text


def refusal(function, *arguments, **options):
    with pytest.raises(LabError) as caught:
        function(*arguments, **options)
    said = silent(str(caught.value))
    assert "\n" not in said and said.endswith(".")
    return said


# --- refused where it is given ----------------------------------------------------------------------------------------------------

TRAIN = ["train", "--recipe", "tiny-causal", "--method", "lora"]
COMMANDS = {
    "publish_to": [*TRAIN, "-p", f"publish_to={TOKEN}"],
    "model": [*TRAIN, "-p", f"model={TOKEN}"],
    "data": [*TRAIN, "-p", f"data={ADDRESS}"],
    "a list": [*TRAIN, "-p", f"target_modules=[q_proj, {TOKEN}]"],
    "a Kaggle key": [*TRAIN, "-p", f"data_revision={SECRETS['KAGGLE_KEY']}"],
    "no value": [*TRAIN, "-p", TOKEN],
    "a name": [*TRAIN, "-p", f"{TOKEN}=1"],
    "a recipe": ["train", "--recipe", TOKEN, "--method", "lora"],
    "a method": ["train", "--recipe", "tiny-causal", "--method", TOKEN],
    "a student": ["run", "--recipe", "tiny-causal", "--assignment", "first-week", "--student", TOKEN],
    "a folder": [*TRAIN, "--out", f"runs/{SECRETS['GITHUB_TOKEN']}"],
    "a name on the hub": ["publish", "--run", "runs/x/lora", "--to", TOKEN],
    "who hands in": ["pack", ".", "--student", TOKEN],
    "a rater": ["rate", ".", "--rater", TOKEN],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_token_on_the_command_line_is_refused_in_one_sentence_that_does_not_repeat_it(words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 1
    shown = capfd.readouterr()
    assert shown.out == "" and silent(shown.err).count("\n") == 1 and shown.err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[*TRAIN, "--seed", TOKEN], [*TRAIN, TOKEN], [TOKEN]])
def test_words_that_no_command_takes_are_not_repeated_where_they_hold_a_token(words, capfd):
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    assert "[removed]" in silent(capfd.readouterr().err)


@pytest.mark.parametrize(
    "name", ["model", "model_dir", "data", "data_dir", "publish_to", "document_column", "target_modules", "seed", "recipe"]
)
def test_a_token_in_a_notebooks_parameters_is_refused_and_told_where_it_belongs(name):
    given = {"recipe": "tiny-causal", "method": "lora", "seed": 0, name: TOKEN}
    said = refusal(config.resolve, **given)
    assert "a token is never a parameter: set HF_TOKEN" in said and name in said


@pytest.mark.parametrize("where", ["run_dir", "assignment", "student"])
def test_a_run_does_not_begin_under_the_name_of_a_token(where, tmp_path):
    given = {"run_dir": tmp_path, "assignment": "week", "student": "ada"} | {where: TOKEN}
    assert where in refusal(runs.start, settings=config.resolve("tiny-causal", "lora"), **given)
    assert list(tmp_path.iterdir()) == []


FILES = {
    "an instruction": "title: t\nrecipe: tiny-causal\nabout: |\n  Log in first.\n  Use {}.\n",
    "a parameter": "title: t\nrecipe: tiny-causal\ncommon:\n  model: x\n  data: {}\n",
    "a name": "title: t\nrecipe: tiny-causal\n\n\n{}: 1\n",
    "a comment": "title: t\nrecipe: tiny-causal\n\n\n# {}\n",
}


@pytest.mark.parametrize("secret", [TOKEN, SECRETS["KAGGLE_KEY"], ADDRESS], ids=["a token", "a Kaggle key", "an address"])
@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_token_in_a_file_of_settings_is_refused_with_its_line(text, secret, tmp_path):
    path = tmp_path / "week.yaml"
    path.write_text(text.format(secret), encoding="utf-8")
    for load in (assignments.load, config.load_recipe):
        assert "week.yaml, line 5, " in refusal(load, path)


def test_the_labs_own_files_of_settings_hold_none():
    for name in config.recipe_names():
        assert config.load_recipe(name).name == name
    for name in assignment_file.known():
        assert assignments.load(name).name == name


def test_a_student_on_a_roster_who_is_a_token_gets_no_folder(tmp_path):
    path = tmp_path / "week.yaml"
    path.write_text("title: t\nrecipe: tiny-causal\nhand_out: [1]\n", encoding="utf-8")
    refusal(handout.write, str(path), tmp_path / "out", ["ada", TOKEN])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "value", ["smollm2-everyday", "google/flan-t5-base", "runs/mine", "all-linear", "ada@example.edu", "hf_style", 0.5, None, True]
)
def test_ordinary_values_are_not_taken_for_secrets(value):
    scrubbing.refuse({"x": value, "y": [value], "z": {"w": value}})
    assert scrubbing.without_secrets(str(value)) == scrubbing.text(str(value)) == str(value)


def test_a_secret_of_ordinary_words_stops_no_run_and_stays_out_of_what_is_handed_in(monkeypatch):
    monkeypatch.setenv("COLUMN_KEY", "dialogue")
    monkeypatch.setenv("NAME_KEY", "tiny-causal/lora")
    assert scrubbing.without_secrets("dialogue tiny-causal/lora") == "dialogue tiny-causal/lora"
    assert scrubbing.text("dialogue of tiny-causal/lora") == "[removed] of [removed]"


# --- taken out where it would be written ------------------------------------------------------------------------------------------


def test_a_record_keeps_no_token_at_any_depth_and_everything_else_as_it_was(tmp_path):
    run = runs.start(tmp_path, config.resolve("tiny-causal", "lora"), "week", "ada")
    before = json.loads((tmp_path / "lora" / "run.json").read_text(encoding="utf-8"))
    run.add(notes=[EVERYTHING, {"inner": EVERYTHING}], kept={"folder": "/home/ada/x", "n": 1, "share": 0.5, "none": None})
    run.mark("failed", f"HTTPError: 401 for {ADDRESS}?token={TOKEN}")
    after = json.loads((tmp_path / "lora" / "run.json").read_text(encoding="utf-8"))
    assert found_in(tmp_path) == []
    assert after["kept"] == {"folder": "/home/ada/x", "n": 1, "share": 0.5, "none": None}
    assert {name: after[name] for name in before if name != "status"} == {name: before[name] for name in before if name != "status"}


NOTEBOOK = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% tags=["parameters"]
seed = 0

# %%
import os
print("· logged in with", os.environ["HF_TOKEN"])
print("password", os.environ["DB_PASSWORD"])
{"text/plain": os.environ["GITHUB_TOKEN"]}

# %%
raise OSError(f"401 for https://ann:{'pa55word'}-of-ann@data.example.org with {os.environ['KAGGLE_KEY']}")
"""


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """All that a student's work leaves: runs over data that hold tokens, a report, a notebook that printed some, a zip, marks."""
    place = tmp_path_factory.mktemp("traces")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        patch.setenv("LAB_CACHE", str(place / "work" / "cache"))
        row = {"document": f"Ann: My login is {EVERYTHING}.\nBen: Do not tell.", "summary": f"Ann tells {EVERYTHING}."}
        (place / "data").mkdir()
        for split, count in (("train", 4), ("validation", 2), ("test", 2)):
            lines = [json.dumps(row | {"document": f"{split} {number} {row['document']}"}) for number in range(count)]
            (place / "data" / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        out = io.StringIO()
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", out)
        given = {"data_dir": str(place / "data"), "train_examples": None, "document_tokens": 600, "summary_tokens": 600}
        for method in ("zero_shot", "lora"):
            methods.run(config.resolve("tiny-causal", method, **given), place / "work" / "runs")
        report.write(place / "work" / "runs", comparison.test_examples(place / "work" / "runs", str(place / "data")))
        source = place / "data" / "03_lora.py"
        source.write_text(NOTEBOOK, encoding="utf-8")
        patch.setattr(course, "source", lambda notebook: source)
        with pytest.raises(LabError) as caught:
            runner.execute(course.named("03"), place / "work" / "runs" / "03_lora.ipynb", {"seed": 3})
        print(packing.pack(place / "work" / "runs", student="ada", out=place / "work"))
    return place / "work", out.getvalue(), str(caught.value)


@pytest.mark.notebook
def test_two_runs_a_report_a_notebook_and_a_zip_hold_no_token(traces):
    """Slow: two whole runs of a tiny model and a kernel, since every byte that they leave is looked at."""
    work, shown, _ = traces
    left = {path.name for path in work.rglob("*") if path.is_file()}
    assert {"run.json", "predictions.jsonl", "log.csv", "report.html", "03_lora.ipynb", "submission-ada.zip"} <= left
    assert found_in(work) == []
    silent("\n".join(line for line in shown.splitlines() if "logged in with" not in line))  # a cell's own words, shown as they come


def test_a_notebook_whose_run_is_killed_has_written_no_token(tmp_path):
    kept = kernel.Kept(tmp_path / "x.ipynb")
    kept.write(json.dumps({"cells": [{"outputs": [{"text": EVERYTHING}]}]}), "x")
    assert found_in(tmp_path) == [] and "data.example.org" in (tmp_path / "x.ipynb").read_text(encoding="utf-8")


def test_an_executed_notebook_keeps_the_rest_of_what_was_shown(traces):
    notebook = json.loads((traces[0] / "runs" / "03_lora.ipynb").read_text(encoding="utf-8"))
    said = json.dumps(notebook)
    assert said.count("[removed]") >= 5 and "logged in with [removed]" in said and "OSError" in said and "data.example.org" in said


def test_the_command_line_scrubs_what_an_error_quotes(traces, monkeypatch, capfd):
    def fails(*_):
        raise LabError(traces[2])

    monkeypatch.setattr(commands, "recipes", fails)
    assert cli.main(["recipes"]) == 1
    shown = silent(capfd.readouterr().err)
    assert "stopped at cell" in shown and "[removed]" in shown


def test_pages_of_a_class_hold_no_token_of_work_that_was_not_packed(load_assignment, tmp_path):
    week = load_assignment("title: t\nrecipe: tiny-causal\nhand_out: [3]\nexercises: [merge]\n")
    work = honest(week, "ada", answers={"merge": f"login('{TOKEN}')\nverdict = check.merge(0)\nverdict"})
    submission = replace(work.submission(), problems=[f"It quotes {EVERYTHING}."])
    gradebook.mark([submission], week, tmp_path)
    assert found_in(tmp_path) == []


def test_a_notebooks_error_shows_a_sentence_without_tokens(monkeypatch):
    shells = []
    shell = types.SimpleNamespace(set_custom_exc=lambda kinds, handler: shells.append((kinds, handler)))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    bootstrap.show_lab_errors_as_sentences()
    ((kinds, handler),) = shells
    shown = []
    handler(types.SimpleNamespace(_showtraceback=lambda *given: shown.append(given)), LabError, LabError(f"No: {EVERYTHING}."), None)
    assert kinds == (LabError,) and shown[0][2][0].startswith("LabError: No: [removed]")
    silent(shown[0][2][0])


def test_progress_is_said_without_tokens(capsys):
    environment.say(f"Looking up {ADDRESS} with {TOKEN}")
    assert silent(capsys.readouterr().out) == "· Looking up https://[removed]@data.example.org/chats with [removed]\n"


def fails(*_, **__):
    raise RuntimeError(f"cannot open /home/ada/x with {EVERYTHING}")


def test_a_bench_that_fails_records_no_token(monkeypatch):
    monkeypatch.setattr(measure, "measure", fails)
    failed = silent(bench.one(None, None)["failed"])
    assert failed.startswith("RuntimeError: cannot open x with [removed]")


def test_a_point_of_a_sweep_that_fails_shows_no_token(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(methods, "run", fails)
    point = types.SimpleNamespace(measure="test", settings=None)
    assert silent(running._attempt(point, tmp_path)).startswith("RuntimeError: cannot open x with [removed]")
    assert "Traceback" in silent(capfd.readouterr().err)


def test_what_a_library_says_of_a_failed_download_is_quoted_without_the_token(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", fails)
    assert "cannot open x with [removed]" in refusal(sources._from_hub, "ada/chats", None, None)


@pytest.mark.parametrize(
    ("error", "said"), [(ValueError(), "ValueError"), (ValueError(" \n"), "ValueError"), (OSError("a.\nb"), "a"), (KeyError("x"), "'x'")]
)
def test_the_reason_of_an_error_is_one_line_also_where_it_says_nothing(error, said):
    assert scrubbing.reason(error) == said
