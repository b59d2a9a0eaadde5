"""Faults of the machine: a disk that fills up at any writing. Each ends in a sentence, with nothing half-written and nothing lost."""

import functools
import gc
import gzip
import json
import os
import resource
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import nbformat
import pyarrow
import pytest
import safetensors.torch
import submitted
import test_bench
import test_report
import torch
from classroom import honest
from faults import Command, chosen, contents, disk, sentence, temporary, try_everywhere
from pyarrow import parquet
from rating_toys import GOOD, documents, write_runs

from lab_utils import (
    adapters,
    assignments,
    blind,
    cache,
    companions,
    config,
    course,
    encoding,
    files,
    handout,
    kernel,
    methods,
    models,
    plots,
    pretrained,
    publish,
    report,
    runs,
    search,
    sheets,
    sources,
    sweep,
    tiny,
)
from lab_utils.bench import report as bench_report
from lab_utils.check import exercise
from lab_utils.config import Model
from lab_utils.data import Example
from lab_utils.errors import LabError
from lab_utils.generation import Prediction
from lab_utils.submissions import gradebook, packing

OLD = "what was there before\n"
SMALL = {"train_examples": 4, "validation_examples": 1, "test_examples": 2, "max_new_tokens": 2}
MANY = [Example(f"e{i}", f"Ann: Is number {i} ready?\nBen: Yes.", (f"{i} is ready.",)) for i in range(encoding.KEPT_FROM)]


def put(name, content=OLD):
    def prepare(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")

    return prepare


def in_cache(run):
    """A command whose cache lies in its folder."""

    def command(folder):
        with mock.patch.dict(os.environ, {"LAB_CACHE": str(folder / "cache")}):
            return run()

    return command


# --- every writing of everything that writes --------------------------------------------------------------------------------------


def toy_cache():
    def write(folder):
        (folder / "inner").mkdir()
        (folder / "inner" / "a.bin").write_bytes(bytes(range(256)) * 50)
        (folder / "b.txt").write_text("b", encoding="utf-8")

    cache.prepared("tokens/toy", write)


def toy_runs(folder):
    rows = [Prediction(f"d{i}", f"Ben is late {i}.", (f"Ben comes late {i}.",), 5, True) for i in range(6)]
    for method in ("zero_shot", "lora"):
        test_report.save(folder, method, rows)


def toy_report(folder):
    with mock.patch.multiple(report, _facts=once(report._facts), figures=once(report.figures)):
        report.make(folder)


def toy_model():
    with mock.patch.object(tiny, "_tokenizer", once(tiny._tokenizer)):
        pretrained.checkpoint_folder(Model(source="random:causal", label="tiny", family="causal"))


def toy_points(folder):
    put("grid.yaml", "recipe: tiny-causal\nmethod: lora\ngrid: {rank: [4, 8]}\n")(folder)
    return sweep.points(folder / "grid.yaml")


@functools.cache
def toy_picture():
    with plots.axes() as (figure, axis):
        axis.plot([1, 2], [1, 2])
        return plots.Picture(figure, "A line.")


def toy_bench(folder):
    results = {"causal-lora-lab": [test_bench.result(100, 1.0)]}
    with mock.patch.object(bench_report, "FIGURES", {"speed": lambda section: toy_picture()}):
        bench_report.write(test_bench.record(results), test_bench.bench.cases(), folder / "toy.md")


def toy_pictures(_):
    return {"scores": toy_picture()}


_first = {}


def once(function):
    """The function, computed the first time only: what is tried here is the writing."""

    def call(*arguments):
        if function not in _first:
            _first[function] = function(*arguments)
        return _first[function]

    return call


def toy_class(folder):
    path = folder.parent / "week.yaml"
    path.write_text("title: Week\nrecipe: tiny-causal\nhand_out: [1]\ncommon: {test_examples: 4}\n", encoding="utf-8")
    given = assignments.load(path)
    with mock.patch.multiple(gradebook, expect=once(gradebook.expect), _mark=once(gradebook._mark), _pictures=toy_pictures):
        gradebook.mark([once(honest)(given, "ada").submission()], given, folder / "marks")


def handed_out(folder):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("Read.", id="a")])
    handout.keep(folder, {Path("student/01.ipynb"): nbformat.writes(notebook), Path("student/brief.html"): "<p>Do.</p>"}, force=False)


def begun_session(folder):
    finished = write_runs(folder, count=2)
    blind.start(folder, finished, documents(finished), "anna").save(**GOOD)


def notebook_copy(folder):
    """What papermill does: the same file, before and after each cell."""
    kept = kernel.Kept(folder / "01.ipynb")
    for text in ("{}", "before", '{"metadata": {}, "cells": []}'):
        kept.write(text, "01.ipynb")
    kept.settle(1.0, ended=True)


COMMANDS = {
    "a file in a new folder": Command(put("a.json"), lambda here: files.write_json(files.make_folder(here / "x" / "y") / "a.json", [1])),
    "a file that is replaced": Command(put("a.txt"), lambda here: files.write_text(here / "a.txt", "new\n" * 5000)),
    "a picture": Command(put("a.png"), lambda here: toy_picture().save(here / "a.png")),
    "a search": Command(lambda here: None, lambda here: search.add({"recipe": "r", "method": "lora", "tried": []}, here / "s.json")),
    "the report": Command(toy_runs, toy_report),
    "what is handed in": Command(
        lambda here: submitted.run_directory(here / "run"), lambda here: packing.pack(here / "run", out=here / "out", notebooks=here)
    ),
    "what is handed out": Command(put("student/01.ipynb.txt"), handed_out),
    "the marks of a class": Command(put("marks/marks.csv"), toy_class),
    "a sweep's plan and table": Command(
        toy_points, lambda here: (sweep.keep_plan(sweep.points(here / "grid.yaml"), here / "out"), sweep.report(here / "out"))
    ),
    "the tables of a bench": Command(put("toy.md"), toy_bench),
    "the cache": Command(put("cache/tokens/other/x"), in_cache(toy_cache)),
    "a model in the cache": Command(lambda here: None, in_cache(toy_model)),
}


@pytest.fixture(autouse=True)
def one_moment(monkeypatch):
    """Submissions say when they were packed."""

    class Frozen(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime(2026, 3, 2, tzinfo=UTC)

    monkeypatch.setattr(packing, "datetime", Frozen)


@pytest.mark.parametrize("what", COMMANDS)
def test_a_disk_that_fills_up_at_any_writing_costs_nothing_but_that_writing(what, tmp_path):
    assert len(try_everywhere(COMMANDS[what], tmp_path)) >= 3


# --- what goes on all the same ------------------------------------------------------------------------------------------------------


def test_an_answer_of_a_rater_is_kept_or_asked_again_and_the_former_ones_stay(tmp_path):
    def session(name):
        finished = write_runs(tmp_path / name, count=2)
        return blind.start(tmp_path / name, finished, documents(finished), "anna")

    first = session("endless")
    first.save(**GOOD)
    with disk(tmp_path / "endless" / "ratings") as counted:
        first.save(**GOOD)
    wanted = sheets.read(tmp_path / "endless").rows
    for room in chosen(counted.done):
        begun = session(f"room-{room}")
        begun.save(**GOOD)
        present, former = begun.task, sheets.read(tmp_path / f"room-{room}").rows
        with disk(tmp_path / f"room-{room}" / "ratings", room=room), pytest.raises(LabError) as caught:
            begun.save(**GOOD)
        assert "nothing of this item is kept" in sentence(caught)
        assert begun.task == present and sheets.read(tmp_path / f"room-{room}").rows == former
        begun.save(**GOOD)
        assert sheets.read(tmp_path / f"room-{room}").rows == wanted


def test_a_verdict_is_shown_though_it_cannot_be_noted_and_says_so(tmp_path, monkeypatch):
    toy = exercise.Exercise("toy", "03_lora", "recall", "Toy", [], judge=lambda answer: None)

    def noted():
        return json.loads((tmp_path / "exercises" / "03_lora.json").read_text(encoding="utf-8"))

    monkeypatch.setattr(exercise, "_run_dir", tmp_path)
    with disk(tmp_path) as counted:
        assert "not noted" not in toy(1).says
    for room in chosen(counted.done)[1:]:  # the folder is there
        before = noted()
        with disk(tmp_path, room=room - 1):
            verdict = toy(1)
        assert verdict.state == exercise.PASSED and "This was not noted for your submission. Cannot write" in verdict.says
        assert noted() == before and not temporary(tmp_path)
    toy(1)
    assert noted() == {"toy": {"state": exercise.PASSED, "tries": 2}}


def test_a_notebook_goes_on_though_its_copy_cannot_be_written_and_the_former_copy_stays_whole(tmp_path):
    path = tmp_path / "01.ipynb"
    kept = kernel.Kept(path)
    kept.write("first", str(path))
    with disk(tmp_path, room=1):
        kept.write("second" * 5000, str(path))
        assert "No space left" in sentence(mock.Mock(value=kept.failure)) and path.read_text() == "first"
    kept.write("third", str(path))
    assert kept.failure is None and path.read_text() == "third" and not temporary(tmp_path)


def test_a_notebook_whose_first_copy_cannot_be_written_does_not_begin(tmp_path):
    kept = kernel.Kept(tmp_path / "01.ipynb")
    with disk(tmp_path, room=0), pytest.raises(LabError) as caught:
        kept.write("first", "01.ipynb")
    assert "No space left" in sentence(caught) and contents(tmp_path) == {}


# --- with what compiled libraries write ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Finished runs: without a model of its own, with an adapter, with a whole model."""
    folder = tmp_path_factory.mktemp("trained")
    for method in ("zero_shot", "lora", "full"):
        methods.run(config.resolve("tiny-causal", method, **SMALL), folder)
    return folder


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_folder_for_the_hub_is_whole_or_the_former_one(trained, method, tmp_path):
    def prepare(folder):
        shutil.copytree(trained / method, folder / method)

    publishing = Command(prepare, lambda folder: publish.prepare(runs.read(folder, method)))
    assert "compiled tokenizer.json" in try_everywhere(publishing, tmp_path)


def test_tokenised_data_is_whole_or_made_again(tmp_path):
    base = models.load(config.resolve("tiny-causal", "zero_shot"))
    rows = once(lambda encoder, examples: [{"input_ids": [1, 2], "labels": [2]} for _ in examples])
    with mock.patch.object(encoding, "_encoded", rows):
        tokenising = Command(lambda here: None, in_cache(lambda: encoding.rows(base.encoder, MANY)))
        assert "compiled rows.parquet" in try_everywhere(tokenising, tmp_path)


def test_the_first_values_of_pissa_do_not_fit_into_the_temporary_folder(tmp_path, monkeypatch):
    base = models.load(config.resolve("tiny-causal", "lora", pissa=True))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with disk(tmp_path, room=1), pytest.raises(LabError) as caught:
        adapters.attach_lora(base)
    assert "temporary folder" in sentence(caught) and "TMPDIR" in str(caught.value)


@contextmanager
def files_of_at_most(size):
    """As on a full disk: whatever writes more into one file fails, below Python, too."""
    former, limit = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, former)


def written_by_tokenizers(folder):
    models.load(config.resolve("tiny-causal", "zero_shot")).tokenizer.save_pretrained(folder)


def written_by_safetensors(folder):
    safetensors.torch.save_file({"a": torch.zeros(50_000)}, folder / "a.safetensors")


def written_by_torch(folder):
    torch.save({"a": torch.zeros(50_000)}, folder / "a.pt")


def written_by_pyarrow(folder):
    parquet.write_table(pyarrow.table({"a": list(range(50_000))}), folder / "a.parquet")


@pytest.mark.parametrize("write", [written_by_tokenizers, written_by_safetensors, written_by_torch, written_by_pyarrow])
def test_what_a_compiled_library_says_of_a_full_disk_is_an_oserror(write, tmp_path):
    """The real libraries, which each say it in their own way."""
    with pytest.raises(OSError) as caught, files_of_at_most(5_000), files.system_errors():
        write(tmp_path)
    assert caught.value.strerror or str(caught.value)


def test_other_errors_of_a_library_stay_what_they_are():
    for error in (ValueError("no such token"), Exception("data did not match"), RuntimeError("shape '[2]' is invalid")):
        with pytest.raises(type(error)) as caught, files.system_errors():
            raise error
        assert caught.value is error


# --- a whole run --------------------------------------------------------------------------------------------------------------------

SLOW = ("write", "compiled") if os.environ.get("LAB_FAULTS") != "all" else ()  # of a whole run: LAB_FAULTS=all takes four minutes


def finished_run(folder):
    """What a run leaves, without what differs from run to run."""
    found = contents(folder, without=("run.json", "log.csv"))
    records = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/run.json")}
    logs = [path.read_text(encoding="utf-8").count("\n") for path in sorted(folder.glob("*/log.csv"))]
    return found, logs, {method: (record["status"], record["metrics"], record["data"]) for method, record in records.items()}


def untrue_record(method, former):
    """Of a run that failed: its record cannot be read, or says `finished` without all that the former run left."""

    def check(folder):
        status = runs.status_of(folder, method)
        if status == "finished" and former:
            gone = [name for name, content in contents(former).items() if contents(folder / method).get(name) != content]
            return f"the record says finished, and {', '.join(gone)} of it is gone" if gone else None
        if status in ("stopped", "failed") or not (former or (folder / method / "run.json").exists()):
            return None
        return f"the record says {status}"

    return check


@pytest.mark.parametrize("method, again", [("zero_shot", False), ("zero_shot", True), ("lora", False), ("full", True)])
def test_a_run_on_a_disk_that_fills_up_ends_in_a_sentence_and_a_true_record(method, again, tmp_path, monkeypatch, trained):
    monkeypatch.setattr(gc, "collect", lambda *_: 0)  # most of a toy run's time
    monkeypatch.setattr(companions, "corpus", once(companions.corpus))
    monkeypatch.setattr(runs, "_commit", lambda: None)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))

    def prepare(folder):
        if again:
            shutil.copytree(trained / method, folder / method)

    def run(folder):
        methods.run(config.resolve("tiny-causal", method, **SMALL, seed=1), folder)

    wrong = untrue_record(method, trained / method if again else None)
    command = Command(prepare, run, finished_run, wrong, whole=False, kinds=SLOW)
    assert try_everywhere(command, tmp_path / "runs", beside=(tmp_path / "scratch",))


# --- damaged data -------------------------------------------------------------------------------------------------------------------

LINES = [json.dumps({"id": str(i), "document": f"Ann: Is {i} ready? 😀\nBen: Yes.", "summary": f"{i} is ready."}) for i in range(3)]


def test_a_last_line_that_was_cut_off_anywhere_is_named(tmp_path):
    """As a killed download or copy leaves it. Between two lines nothing can be seen."""
    path = tmp_path / "train.jsonl"
    whole = ("\n".join(LINES) + "\n").encode("utf-8")
    last = len("\n".join(LINES[:2]).encode("utf-8")) + 1
    for cut in range(last + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(LabError, match=r"train\.jsonl, line 3: not (valid JSON|UTF-8 text)"):
            sources.read_file(path)


@pytest.mark.parametrize("sixteenth", range(16))
def test_a_parquet_file_that_was_cut_off_is_named(tmp_path, sixteenth):
    path = tmp_path / "train.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([json.loads(line) for line in LINES]), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * sixteenth // 16])
    with pytest.raises(LabError, match=r"^train\.parquet .*\.$"):
        sources.read_file(path)


def test_a_changed_byte_in_a_parquet_file_with_checksums_is_named(tmp_path):
    """Few writers add them. Without them another text comes out, and the record's fingerprint of the data says so."""
    path = tmp_path / "train.parquet"
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    parquet.write_table(pyarrow.Table.from_pylist([json.loads(line) for line in LINES]), path, **options)
    path.write_bytes(path.read_bytes().replace(b"1 is ready.", b"7 is ready.", 1))
    with pytest.raises(LabError, match=r"^train\.parquet .*\.$"):
        sources.read_file(path)


@pytest.mark.parametrize("name, said", [("train.jsonl.gz", "is none of"), ("train.jsonl", "line 1: not UTF-8 text")])
def test_a_packed_file_is_no_data_and_is_named(tmp_path, name, said):
    path = tmp_path / name
    path.write_bytes(gzip.compress("\n".join(LINES).encode("utf-8")))
    with pytest.raises(LabError) as caught:
        sources.read_file(path)
    assert said in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize("content", [b"step,loss\n1,x\n", b"loss\n3.5\n", b"\xff\xfe", b'step,loss\n1,"3', b"step,loss\n1,2,3\n"])
def test_a_log_that_was_cut_off_or_changed_is_named(tmp_path, content):
    path = tmp_path / "lora" / "log.csv"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(LabError, match=r"^log\.csv of lora cannot be read \(.*\): run the method again, .*\.$"):
        report.read_log(path)


# --- the clock moves ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[-86_400.0, 86_400.0], ids=["back", "forth"])
def moved_clock(request, monkeypatch):
    """A clock that somebody sets by a day whenever it is read."""
    moments = {"now": 1_800_000_000.0}

    def read():
        moments["now"] += request.param
        return moments["now"]

    class Moved(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime.fromtimestamp(read(), zone)

    monkeypatch.setattr(time, "time", read)
    monkeypatch.setattr(runs, "datetime", Moved)


def test_no_duration_follows_a_clock_that_is_set_in_a_run(moved_clock, tmp_path):
    record = methods.run(config.resolve("tiny-causal", "lora", **SMALL), tmp_path).record
    assert record["status"] == "finished"
    assert 0 <= record["training"]["seconds"] < 60 and 0 <= record["generation"]["seconds"] < 60
    assert record["training"]["tokens_per_second"] > 0
    seconds = [float(line.split(",")[5]) for line in (tmp_path / "lora" / "log.csv").read_text(encoding="utf-8").splitlines()[1:]]
    assert all(0 <= one < 60 for one in seconds) and seconds == sorted(seconds)


def test_a_recipe_is_read_again_when_it_changed_though_its_time_did_not(tmp_path):
    path = tmp_path / "own.yaml"
    text = (config.RECIPES / "tiny-causal.yaml").read_text(encoding="utf-8")
    for rank in (4, 8, 4):
        path.write_text(text.replace("rank: 4, alpha: 8", f"rank: {rank}, alpha: 8"), encoding="utf-8")
        os.utime(path, (1_000_000_000, 1_000_000_000))
        assert config.load_recipe(str(path)).lora.rank == rank


def test_a_notebooks_parameters_are_read_again_when_they_changed_though_its_time_did_not(tmp_path, monkeypatch):
    path = tmp_path / "03_lora.py"
    monkeypatch.setattr(course, "source", lambda notebook: path)
    for seed in (1, 2):
        path.write_text(f'# %% tags=["parameters"]\nseed = {seed}\n', encoding="utf-8")
        os.utime(path, (1_000_000_000, 1_000_000_000))
        assert course.parameters_of(course.NOTEBOOKS[2]) == {"seed": seed}
