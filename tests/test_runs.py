import errno
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab_utils import config, data, runs
from lab_utils.errors import LabError, TrainingDiverged
from lab_utils.generation import Prediction
from lab_utils.runs import Finished

SECRET = "hf_NobodyMayReadThis"
PREDICTIONS = [
    Prediction("a", "Ben is late.", ("Ben comes late.", "Ben is late."), 4, True),
    Prediction("b", "", ("Nothing.",), 0, True),
    Prediction("c", 'She said: "no"\n\\ and\tleft', ("No.",), 80, False),
]


def settings(method="zero_shot", **changes):
    return config.resolve("tiny-causal", method, **changes)


def finished_run(folder, method="zero_shot", predictions=PREDICTIONS):
    run = runs.start(folder, settings(method))
    run.save_predictions(predictions)
    run.finish()
    return run


def on_disk(run) -> dict:
    return json.loads((run.folder / "run.json").read_text(encoding="utf-8"))


def names(folder) -> set:
    return {path.name for path in folder.iterdir()}


def one_sentence(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text and text.endswith("."), text
    return text


# --- the status


def test_a_record_says_stopped_from_its_first_moment(tmp_path):
    run = runs.start(tmp_path, settings())
    assert on_disk(run)["status"] == runs.status_of(tmp_path, "zero_shot") == "stopped"
    run.add(data={"name": "toy"})
    assert on_disk(run)["status"] == "stopped"


def test_a_record_names_what_is_known_before_any_work(tmp_path):
    record = on_disk(runs.start(tmp_path, settings("lora", rank=3, seed=7)))
    assert (record["schema"], record["method"], record["recipe"], record["seed"], record["assignment"]) == (
        1,
        "lora",
        "tiny-causal",
        7,
        None,
    )
    assert record["config"]["recipe"]["lora"]["rank"] == 3
    assert {"python", "platform", "packages", "device", "precision", "precision_reason", "commit"} == set(record["environment"])
    assert "torch" in record["environment"]["packages"]


def test_a_record_names_its_assignment_and_its_student_where_there_are_any(tmp_path):
    record = on_disk(runs.start(tmp_path, settings(), "week-3", "ann"))
    assert (record["assignment"], record["student"]) == ("week-3", "ann")
    record = on_disk(runs.start(tmp_path, settings()))
    assert record["assignment"] is None and record["student"] is None


def test_a_record_says_when_it_was_begun(tmp_path):
    before = datetime.now(UTC).replace(microsecond=0)
    assert before <= datetime.fromisoformat(on_disk(runs.start(tmp_path, settings()))["started"]) <= datetime.now(UTC)


def test_a_finished_run_says_so_and_keeps_what_was_added(tmp_path):
    run = runs.start(tmp_path, settings())
    run.add(data={"name": "toy"}, metrics={"n": 3})
    run.finish()
    record = on_disk(run)
    assert (record["status"], record["data"], record["metrics"]) == ("finished", {"name": "toy"}, {"n": 3})


@pytest.mark.parametrize("error", [LabError("The disk is full."), TrainingDiverged("The loss became nan."), ValueError("odd")])
def test_an_error_is_recorded_as_failed_with_its_reason_and_goes_on(tmp_path, error):
    run = runs.start(tmp_path, settings())
    with pytest.raises(type(error)) as caught, run.watched():
        raise error
    assert caught.value is error
    assert (on_disk(run)["status"], on_disk(run)["error"]) == ("failed", f"{type(error).__name__}: {error}")


def test_ctrl_c_is_recorded_as_stopped_and_goes_on(tmp_path):
    run = runs.start(tmp_path, settings())
    run.add(status="running")
    with pytest.raises(KeyboardInterrupt), run.watched():
        raise KeyboardInterrupt
    assert on_disk(run)["status"] == "stopped" and "error" not in on_disk(run)


def test_watching_does_not_finish_a_run(tmp_path):
    run = runs.start(tmp_path, settings())
    with run.watched():
        run.add(data={"name": "toy"})
    assert on_disk(run)["status"] == "stopped"


def test_starting_again_unmakes_the_finished_run_and_its_files(tmp_path):
    run = finished_run(tmp_path)
    (run.folder / "log.csv").write_text("step\n1\n")
    run.add(metrics={"n": 3}, error="old")
    again = runs.start(tmp_path, settings())
    assert names(again.folder) == {"run.json"}
    assert on_disk(again)["status"] == "stopped" and not {"metrics", "error"} & set(on_disk(again))


def test_starting_one_method_leaves_the_others(tmp_path):
    finished_run(tmp_path, "lora")
    runs.start(tmp_path, settings("zero_shot"))
    assert len(runs.read(tmp_path, "lora").predictions) == len(PREDICTIONS)


# --- writing


def test_a_write_that_fails_half_way_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    run = finished_run(tmp_path)
    before = {name: (run.folder / name).read_bytes() for name in names(run.folder)}

    def half(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    for write in (lambda: run.add(metrics={"n": 9}), lambda: run.save_predictions([])):
        with pytest.raises(LabError, match="No space left on device"):
            write()
    assert {name: (run.folder / name).read_bytes() for name in names(run.folder)} == before


def test_a_replacement_that_fails_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    run = finished_run(tmp_path)
    before = {name: (run.folder / name).read_bytes() for name in names(run.folder)}

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(LabError) as caught:
        run.add(metrics={"n": 9})
    one_sentence(caught)
    assert {name: (run.folder / name).read_bytes() for name in names(run.folder)} == before


def test_a_reader_never_meets_a_half_written_record(tmp_path, monkeypatch):
    run = finished_run(tmp_path)
    seen = []
    replace = Path.replace

    def look_first(temporary, target):
        json.loads(temporary.read_text(encoding="utf-8"))
        seen.append(on_disk(run)["status"])
        return replace(temporary, target)

    monkeypatch.setattr(Path, "replace", look_first)
    run.add(status="failed")
    assert seen == ["finished"] and on_disk(run)["status"] == "failed"
    assert names(run.folder) == {"run.json", "predictions.jsonl"}


def test_a_run_directory_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LabError) as caught:
        runs.start(tmp_path / "file" / "run", settings())
    assert "--out" in one_sentence(caught)


# --- what must not be in it


def texts_of(folder) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file())


def test_records_hold_no_absolute_path_of_model_data_or_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_model, own_data = tmp_path / "somebody" / "my-model", tmp_path / "somebody" / "my-data"
    own_model.mkdir(parents=True)
    own_data.mkdir()
    run = runs.start(tmp_path / "out", settings(model_dir=str(own_model), data_dir=str(own_data)))
    run.save_predictions(PREDICTIONS)
    run.finish()
    text = texts_of(tmp_path / "out")
    assert "somebody" not in text and str(Path(__file__).parents[1]) not in text
    recipe = on_disk(run)["config"]["recipe"]
    assert (recipe["model"]["source"], recipe["data"]["source"]) == ("my-model", "my-data")


def test_a_failed_record_holds_no_absolute_path_either(tmp_path):
    chosen = settings(data_dir=str(tmp_path / "somebody" / "no-such-data"))
    run = runs.start(tmp_path / "out", chosen)
    with pytest.raises(LabError), run.watched():
        data.load(chosen.recipe.data)
    text = texts_of(tmp_path / "out")
    assert "no-such-data" in text and "somebody" not in text


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"])
def test_records_hold_no_secret_of_the_environment(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, SECRET)
    run = finished_run(tmp_path)
    with pytest.raises(LabError), run.watched():
        raise LabError("The model could not be loaded.")
    assert SECRET not in texts_of(tmp_path)


# --- reading


def test_predictions_come_back_as_they_were_written(tmp_path):
    finished_run(tmp_path)
    assert runs.read(tmp_path, "zero_shot").predictions == PREDICTIONS


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\u2029", "\x0b", "\r", "\x00", "\u202e", "😀", "\ud83d", "שלום"])
def test_odd_characters_come_back_as_they_were_written(tmp_path, odd):
    predictions = [Prediction("a", f"one{odd}two", (f"three{odd}four",), 3, True), Prediction("b", "plain", ("plain",), 1, True)]
    finished_run(tmp_path, predictions=predictions)
    assert runs.read(tmp_path, "zero_shot").predictions == predictions


def test_reading_a_missing_record_is_one_sentence(tmp_path):
    with pytest.raises(LabError) as caught:
        runs.read(tmp_path, "lora")
    assert "lora" in str(caught.value) and "no record" in one_sentence(caught)


@pytest.mark.parametrize("status", ["stopped", "failed"])
def test_reading_an_unfinished_record_is_one_sentence(tmp_path, status):
    finished_run(tmp_path).add(status=status)
    with pytest.raises(LabError) as caught:
        runs.read(tmp_path, "zero_shot")
    assert f"is {status}" in one_sentence(caught)


@pytest.mark.parametrize("content", [b"", b'{"status": "finish', b"[]", b'"finished"', b"{}", b"\xff\xfe", b"null"])
def test_reading_a_broken_record_is_one_sentence(tmp_path, content):
    run = finished_run(tmp_path)
    (run.folder / "run.json").write_bytes(content)
    with pytest.raises(LabError) as caught:
        runs.read(tmp_path, "zero_shot")
    one_sentence(caught)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b'{"id": "a", "prediction": "x", "refer',
        b'{"id": "a"}',
        b'{"id": "a", "prediction": "x", "references": ["y"], "tokens": 1, "stopped": true, "score": 5}',
        b"[1, 2]",
        b"\xff\xfe",
    ],
)
def test_reading_broken_predictions_is_one_sentence(tmp_path, content):
    run = finished_run(tmp_path)
    (run.folder / "predictions.jsonl").unlink()
    if content is not None:
        (run.folder / "predictions.jsonl").write_bytes(content + b"\n")
    with pytest.raises(LabError) as caught:
        runs.read(tmp_path, "zero_shot")
    assert "predictions.jsonl of zero_shot" in one_sentence(caught)


def test_the_settings_of_another_versions_record_are_refused_in_one_sentence(tmp_path):
    run = finished_run(tmp_path)
    run.record["config"]["recipe"]["later"] = 1
    with pytest.raises(LabError, match=r"another version: unknown name 'recipe\.later'") as caught:
        runs.Finished("zero_shot", run.record, [], tmp_path).settings()
    one_sentence(caught)


def test_all_finished_runs_are_read_in_the_courses_order(tmp_path):
    for method in ("qlora", "full", "zero_shot"):
        finished_run(tmp_path, method)
    runs.start(tmp_path, settings("lora"))
    assert [run.method for run in runs.read_all(tmp_path)] == ["zero_shot", "full", "qlora"]
    assert runs.read_all(tmp_path / "nowhere") == []


# --- what may be compared


def comparable(method, **changes):
    """A record whose parts that matter can be changed by a dotted path."""
    record = {
        "model": {"fingerprint": "m1", "parameters": 10},
        "data": {"fingerprint": "d1", "test": 5},
        "config": {
            "recipe": {
                "prompt": {"style": "plain", "system": None, "instruction": "Summarize.", "cue": ""},
                "lengths": {"document_tokens": 512, "summary_tokens": 96},
                "generation": {"max_new_tokens": 80, "generation_batch": 16},
            }
        },
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = record
        for parent in parents:
            place = place[parent]
        place[last] = value
    return Finished(method, record, [], Path(method))


DIFFERENCES = {
    "model__fingerprint": ("m2", "base model"),
    "data__fingerprint": ("d2", "test set"),
    "data__test": (4, "test set"),
    "config__recipe__prompt__instruction": ("Summarise.", "prompt"),
    "config__recipe__prompt__cue": ("Summary:", "prompt"),
    "config__recipe__prompt__style": ("chat", "prompt"),
    "config__recipe__lengths__document_tokens": (256, "length limits"),
    "config__recipe__generation__max_new_tokens": (40, "decoding"),
}


@pytest.mark.parametrize("path", DIFFERENCES)
def test_a_difference_that_makes_a_comparison_unfair_is_named(path):
    value, name = DIFFERENCES[path]
    (reason,) = runs.unlike([comparable("zero_shot"), comparable("lora", **{path: value}), comparable("qlora")])
    assert reason == f"lora used another {name} than zero_shot"


def test_every_difference_is_named_with_every_run_that_differs():
    reasons = runs.unlike(
        [comparable("zero_shot"), comparable("full", model__fingerprint="m2"), comparable("lora", model__fingerprint="m3", data__test=4)]
    )
    assert reasons == ["full, lora used another base model than zero_shot", "lora used another test set than zero_shot"]


def test_runs_may_differ_in_what_does_not_touch_fairness():
    batch, room = {"config__recipe__generation__generation_batch": 1}, {"config__recipe__lengths__summary_tokens": 200}
    assert runs.unlike([comparable("zero_shot"), comparable("lora", **batch), comparable("full", **room)]) == []
    assert runs.unlike([comparable("zero_shot")]) == runs.unlike([]) == []
